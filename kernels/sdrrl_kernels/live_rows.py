"""The rows that carry loss: only they are projected onto the vocabulary.

Questions and padding have no label, more than half of the rows of an instruction set. Labels are made on the host, so
which rows are live is known before a step begins, and nothing waits for the device.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


class _Select(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, live: Tensor) -> Tensor:
        ctx.shape = rows.shape
        ctx.save_for_backward(live)
        return rows.index_select(0, live)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, None]:
        # A copy, where index_select's own backward pass adds: no row is there twice, and adding is not deterministic.
        (live,) = ctx.saved_tensors
        return upstream[0].new_zeros(ctx.shape).index_copy_(0, live, upstream[0]), None


def select_rows(rows: Tensor, live: Tensor) -> Tensor:
    """[n, H] -> [m, H]: the rows that ``live`` (int64 [m], none twice) numbers; others get gradient 0."""
    return cast(Tensor, _Select.apply(rows, live))
