"""Rows split over the tensor-parallel group: gather them for the output layer, give each rank its gradient back."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        world = dist.get_world_size(group)
        whole = hidden.new_empty((world * hidden.shape[0], *hidden.shape[1:]))
        dist.all_gather_into_tensor(whole, hidden.contiguous(), group=group)
        return whole

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, None]:
        # linear_cross_entropy has summed the gradient over the ranks: each takes its rows
        rows = upstream[0].shape[0] // dist.get_world_size(ctx.group)
        start = rows * dist.get_rank(ctx.group)
        return upstream[0][start : start + rows], None


def gather_sequence(hidden: Tensor, group: dist.ProcessGroup) -> Tensor:
    """[n/tp, H] of this rank -> [n, H], rank by rank; the gradient must come back already summed over ranks."""
    return cast(Tensor, _Gather.apply(hidden, group))
