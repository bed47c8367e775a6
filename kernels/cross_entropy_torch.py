"""Per-token-weighted cross-entropy over vocab-parallel logits, torch ops only; runs on any device.

One autograd node: the forward pass turns the logits buffer into its own gradient, already multiplied by the
weights, so that no second [n, V/tp] buffer is kept. Three all-reduces under tensor parallelism are folded into two:
the row maximum, then (sum of exponentials, label logit) together.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from kernels.reference import IGNORE_INDEX

CHUNK_ELEMENTS = 1 << 22
"""fp32 elements worked on at a time: rows are independent, so chunks bound the temporary memory to 16 MiB."""


def vocab_parallel_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    subset_ids: Tensor,
    num_subsets: int,
    *,
    vocab_start: int = 0,
    vocab_size: int | None = None,
    ignore_index: int = IGNORE_INDEX,
    tp_group: dist.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of token losses and its split by subset (Eq. 6).

    Args:
        logits: [n, V/tp] fp32, bf16 or fp16, this rank's slice of the vocabulary; **overwritten** by its gradient.
        labels: int64 [n], ids in the whole vocabulary, or ``ignore_index``.
        weights: fp32 [n], constants that multiply each token's loss.
        subset_ids: int64 [n] in [0, num_subsets).
        vocab_start: first vocabulary id of this rank's slice.
        vocab_size: true vocabulary size; columns at or beyond it are padding and get no probability. None: no padding.
        tp_group: tensor-parallel group; None or size 1 means the whole vocabulary is here.

    Returns: (loss fp32 [], subset_sums fp32 [num_subsets], not differentiable), equal on every rank of ``tp_group``.

    Raises: ValueError for wrong shapes or dtypes.
    """
    _check(logits, labels, weights, subset_ids)
    valid = logits.shape[1] if vocab_size is None else max(0, min(logits.shape[1], vocab_size - vocab_start))
    group = tp_group if tp_group is not None and dist.get_world_size(tp_group) > 1 else None
    out = _CrossEntropy.apply(logits, labels, weights, subset_ids, num_subsets, vocab_start, valid, ignore_index, group)
    return cast("tuple[Tensor, Tensor]", out)


def _check(logits: Tensor, labels: Tensor, weights: Tensor, subset_ids: Tensor) -> None:
    n = logits.shape[0]
    if logits.dim() != 2 or logits.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"logits must be [n, V/tp] fp32, bf16 or fp16, got {tuple(logits.shape)} {logits.dtype}")
    for name, t in (("labels", labels), ("weights", weights), ("subset_ids", subset_ids)):
        if t.shape != (n,):
            raise ValueError(f"{name} must have shape [{n}] like the rows of logits, got {tuple(t.shape)}")
    if weights.dtype != torch.float32:
        raise ValueError(f"weights must be fp32, got {weights.dtype}")


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weights: Tensor,
        subset_ids: Tensor,
        num_subsets: int,
        vocab_start: int,
        valid: int,
        ignore_index: int,
        group: dist.ProcessGroup | None,
    ) -> tuple[Tensor, Tensor]:
        n = logits.shape[0]
        keep = labels != ignore_index
        local = labels - vocab_start
        mine = keep & (local >= 0) & (local < valid)
        column = torch.where(mine, local, torch.zeros_like(local))
        rows = max(1, CHUNK_ELEMENTS // max(1, logits.shape[1]))
        chunks = [slice(i, min(i + rows, n)) for i in range(0, n, rows)]

        maximum = torch.full((n,), float("-inf"), dtype=torch.float32, device=logits.device)
        if valid:
            maximum = logits[:, :valid].amax(dim=1).float()
        if group is not None:
            dist.all_reduce(maximum, op=dist.ReduceOp.MAX, group=group)

        partial = torch.zeros(2, n, dtype=torch.float32, device=logits.device)
        if valid:
            for c in chunks:
                partial[0, c] = (logits[c, :valid].float() - maximum[c, None]).exp_().sum(dim=1)
            picked = logits.gather(1, column[:, None]).squeeze(1).float()
            partial[1] = torch.where(mine, picked, torch.zeros_like(picked))
        if group is not None:
            dist.all_reduce(partial, group=group)
        lse = maximum + partial[0].log()
        weight = torch.where(keep, weights, torch.zeros_like(weights))
        token = torch.where(keep, (lse - partial[1]) * weight, torch.zeros_like(lse))

        _gradient_in_place(logits, lse, weight, column, mine, valid, chunks)
        ctx.save_for_backward(logits)
        subset_sums = torch.zeros(num_subsets, dtype=torch.float64, device=logits.device)
        subset_sums.index_add_(0, subset_ids.clamp(min=0), token.double())
        subset_sums = subset_sums.float()
        ctx.mark_non_differentiable(subset_sums)
        return token.double().sum().float(), subset_sums

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_outputs[0], *(None,) * 8)


def _gradient_in_place(
    logits: Tensor, lse: Tensor, weight: Tensor, column: Tensor, mine: Tensor, valid: int, chunks: list[slice]
) -> None:
    """Overwrite logits [n, V/tp] by weight * (softmax - onehot); rows of weight 0 and padding columns become 0."""
    if valid < logits.shape[1]:
        logits[:, valid:] = 0
    if not valid:
        return
    for c in chunks:
        g = (logits[c, :valid].float() - lse[c, None]).exp_()
        g.scatter_add_(1, column[c, None], -mine[c, None].float())
        g.mul_(weight[c, None])
        # a row nobody asks for may hold inf or nan logits; 0 * nan must not leak into the gradient
        g[weight[c] == 0] = 0
        logits[c, :valid] = g.to(logits.dtype)
