"""Autograd node of the loss over vocab-parallel logits; thin, the work is in the backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from sdrrl_kernels.options import Backend, LossOptions, exchange


def logsumexp_of(row_max: Tensor, row_sum: Tensor, labels: Tensor, weights: Tensor, o: LossOptions) -> Tensor:
    """fp32 [n], 0 in skipped rows (their logits are not read)."""
    return torch.where((labels == o.ignore_index) | (weights == 0), 0.0, row_max + row_sum.log())


class CrossEntropy(torch.autograd.Function):
    """(logits, ...) -> (loss [] or token losses [n], subset_sums, subset_counts, logsumexp or empty).

    Two plans. ``expected`` None: the forward pass only reads the logits, the backward pass makes them the gradient;
    any upstream gradient is exact to one rounding, and other users of the logits see them intact until then.
    ``expected`` a number: loss and gradient in one launch (the row is not split over ranks), the backward pass only
    compares the upstream gradient with the number, on the device, and rescales where they differ.
    Wherever the logits were overwritten their version is raised, so that autograd refuses a second use of them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weights: Tensor,
        subset_ids: Tensor,
        num_subsets: int,
        o: LossOptions,
        backend: Backend,
        reduction: str,
        return_logsumexp: bool,
        in_place: bool,
        expected: float | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.o, ctx.backend, ctx.in_place, ctx.expected = o, backend, in_place, expected
        if expected is not None and ctx.needs_input_grad[0]:
            token, row_max, row_sum = backend.one_pass(logits.detach(), labels, weights, expected, o)
            increment_version(logits)
            ctx.save_for_backward(logits)
        else:
            parts = exchange(backend.statistics(logits.detach(), labels, weights, o), o.group)
            token, row_max, row_sum = backend.finish(parts, labels, weights, o)
            ctx.expected = None
            ctx.save_for_backward(logits, labels, weights, row_max, row_sum)
        loss, sums, counts = backend.totals(token, labels, subset_ids, num_subsets, o.ignore_index)
        lse = logsumexp_of(row_max, row_sum, labels, weights, o) if return_logsumexp else token.new_empty(0)
        ctx.mark_non_differentiable(sums, counts, lse)
        return (token if reduction == "none" else loss), sums, counts, lse

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        u = upstream[0].contiguous()
        saved = ctx.saved_tensors  # read once: activation recompute allows no second time
        logits = saved[0]
        if ctx.expected is not None:
            gradient = logits.detach()
            ctx.backend.rescale(gradient, u, ctx.expected)
        else:
            labels, weights, row_max, row_sum = saved[1:]
            gradient = logits.detach() if ctx.in_place else torch.empty_like(logits)
            ctx.backend.gradient(logits.detach(), gradient, labels, weights, u, row_max, row_sum, ctx.o)
        if ctx.in_place or ctx.expected is not None:
            increment_version(logits)
        return (gradient, *(None,) * 10)
