"""Context parallelism: which tokens a rank holds, and attention over keys and values gathered from the others.

Every sample is cut into 2 * cp equal chunks; rank r holds chunks r and 2 * cp - 1 - r, so all ranks have the same
causal work. This is the layout of Transformer Engine's packed (THD) attention and of megatron-core's rotary
embedding. Where Transformer Engine is absent, keys and values are gathered from all ranks (the all-gather variant of
Llama 3, arXiv 2407.21783, section 3.3.2) and each rank computes its own queries; chunks keep the causal order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor


def granularity(cp_size: int) -> int:
    """Every sample's length must be a multiple of this."""
    return 2 * cp_size if cp_size > 1 else 1


def chunks_of_rank(begin: int, end: int, cp_size: int, cp_rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The two chunks [a, b) of tokens begin..end that ``cp_rank`` holds, in order."""
    size = (end - begin) // (2 * cp_size)
    mirror = 2 * cp_size - 1 - cp_rank
    return (
        (begin + cp_rank * size, begin + (cp_rank + 1) * size),
        (begin + mirror * size, begin + (mirror + 1) * size),
    )


def positions(bounds: Sequence[int], cp_size: int, cp_rank: int) -> npt.NDArray[np.int64]:
    """Token positions that a rank holds, in its order. ``bounds``: cu_seqlens, multiples of ``granularity``."""
    edges = np.asarray(bounds, np.int64)
    sizes = np.diff(edges) // (2 * cp_size)
    first, mirror = edges[:-1] + cp_rank * sizes, edges[:-1] + (2 * cp_size - 1 - cp_rank) * sizes
    begins = np.stack((first, mirror), axis=1).flatten()
    return np.repeat(begins, np.repeat(sizes, 2)) + counted(np.repeat(sizes, 2))


def counted(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, 1, ... size - 1 for each of ``sizes``, one behind the other, int64 [sum of sizes]."""
    ends = np.cumsum(sizes)
    return np.arange(int(sizes.sum())) - np.repeat(ends - sizes, sizes)


class _Gather(torch.autograd.Function):
    """Sequences [t / cp, ...] of all ranks, one after another; backward sums the ranks' gradients of the own part."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, part: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group  # type: ignore[attr-defined]
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(group.size())]
        dist.all_gather(parts, part.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        group: dist.ProcessGroup = ctx.group  # type: ignore[attr-defined]
        total = grads[0].float().contiguous()  # summed in fp32 and rounded once
        dist.all_reduce(total, group=group)
        return total.chunk(group.size())[group.rank()].to(grads[0].dtype), None


def gather_sequence(part: Tensor, bounds: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    """[t / cp, ...] on each rank -> [t, ...] in the order of the tokens."""
    size = group.size()
    held = np.concatenate([positions(bounds, size, r) for r in range(size)])
    order = torch.from_numpy(np.argsort(held)).to(part.device)
    gathered: Tensor = _Gather.apply(part, group)  # type: ignore[no-untyped-call]
    return gathered.index_select(0, order)
