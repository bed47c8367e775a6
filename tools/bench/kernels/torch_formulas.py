"""The loss as this project, torch and other projects write it, all of it runnable without a GPU.

Liger-Kernel's and ml-cross-entropy's entries are their formulas in torch operations, not their kernels.
``WEIGHTED`` names those that take a weight a token; the others compute the plain sum, which costs them less.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sdrrl_kernels.api import cross_entropy, linear_cross_entropy
from sdrrl_kernels.reference import IGNORE_INDEX
from tools.bench.kernels.loss_cases import SUBSETS, Case, Step, plain_loss


def ours(case: Case, expected: float | None = None) -> Tensor:
    if case.flow == "linear":
        out = linear_cross_entropy(case.hidden, case.weight, case.labels, case.weights, case.subset, SUBSETS)
    else:
        # the buffer takes the gradient, as in training; its values do not matter for time
        logits = case.own_logits()
        out = cross_entropy(
            logits, case.labels, case.weights, case.subset, SUBSETS, expected_upstream=expected if case.grad else None
        )
    return case.finish(out.loss)


def eager(case: Case) -> Tensor:
    return case.finish(plain_loss(case.logits_of_any_flow(), case.labels, case.weights))


def _linear_loss(hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return plain_loss(hidden @ weight.t(), labels, weights)


_compiled_loss = torch.compile(plain_loss)
_compiled_linear_loss = torch.compile(_linear_loss)


def compiled(case: Case) -> Tensor:
    if case.flow == "linear":
        value: Tensor = _compiled_linear_loss(case.hidden, case.weight, case.labels, case.weights)
        return case.finish(value)
    return case.finish(_compiled_loss(case.own_logits(), case.labels, case.weights))


def torch_native(case: Case) -> Tensor:
    """torch >= 2.13: chunked by its own defaults. Its weights are per class, so this is the plain sum."""
    return case.finish(
        F.linear_cross_entropy(
            case.hidden,
            case.weight,
            case.labels,
            reduction="sum",
            ignore_index=IGNORE_INDEX,
            options=torch.nn.LinearCrossEntropyOptions(),
        )
    )


class _LigerLinear(torch.autograd.Function):
    """Liger-Kernel 0.8.5's fused linear form in torch operations.

    Its chunk rule (``chunk_mem_const`` 1), logits in one buffer that becomes their gradient, and the weight's gradient
    summed over chunks in the weight's dtype (``accum_dtype`` None).
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor
    ) -> Tensor:
        n, width = hidden.shape
        share = -(-weight.shape[0] // width)
        rows = min(n, 1 << (-(-n // share) - 1).bit_length())
        d_hidden, d_weight = torch.zeros_like(hidden), torch.zeros_like(weight)
        buffer = hidden.new_empty(rows, weight.shape[0])
        total = hidden.new_zeros((), dtype=torch.float32)
        for i in range(0, n, rows):
            c = slice(i, i + rows)
            logits = buffer[: min(rows, n - i)]
            torch.mm(hidden[c], weight.t(), out=logits)
            total += _loss_in_place(logits, labels[c], weights[c])
            torch.mm(logits, weight, out=d_hidden[c])
            d_weight += torch.mm(logits.t(), hidden[c]).float()
        ctx.save_for_backward(d_hidden, d_weight)
        return total

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def, override]
        d_hidden, d_weight = ctx.saved_tensors
        if not torch.equal(g, torch.ones_like(g)):
            d_hidden, d_weight = d_hidden.mul_(g), d_weight.mul_(g)
        return d_hidden, d_weight, None, None


def _loss_in_place(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Loss of the rows; logits become their gradient. An ignored row has weight 0, so its label does not matter."""
    x, y = logits.float(), labels.clamp(min=0)[:, None]
    lse = torch.logsumexp(x, 1)
    picked = x.gather(1, y).squeeze(1)
    x.sub_(lse[:, None]).exp_()
    x.scatter_add_(1, y, torch.full_like(y, -1, dtype=x.dtype))
    logits.copy_(x.mul_(weights[:, None]))
    return ((lse - picked) * weights).sum()


class _InPlace(torch.autograd.Function):
    """Liger-Kernel's cross-entropy in torch operations: the gradient overwrites the logits in the forward pass."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        total = _loss_in_place(logits, labels, weights)
        ctx.save_for_backward(logits.detach())
        return total

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def, override]
        gradient = ctx.saved_tensors[0]
        return gradient if torch.equal(g, torch.ones_like(g)) else gradient.mul_(g), None, None


def liger(case: Case) -> Tensor:
    if case.flow == "linear":
        return case.finish(_LigerLinear.apply(case.hidden, case.weight, case.labels, case.weights))
    return case.finish(_InPlace.apply(case.own_logits(), case.labels, case.weights))


def _cce_fallback(hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Formula of ml-cross-entropy's torch_compile implementation: fp32 logits, logsumexp, nll_loss."""
    logits = (hidden @ weight.t()).float()
    return (F.nll_loss(logits - torch.logsumexp(logits, -1, keepdim=True), labels, reduction="none") * weights).sum()


_cce_compiled = torch.compile(_cce_fallback, fullgraph=True)


def cce(case: Case) -> Tensor:
    value: Tensor = _cce_compiled(case.hidden, case.weight, case.labels, case.weights)
    return case.finish(value)


NATIVE = "torch native"
HAS_NATIVE = hasattr(F, "linear_cross_entropy")
"""Came with torch 2.13: 2.12.1 has no such function."""
IMPLEMENTATIONS: dict[str, dict[str, Step]] = {
    "logits": {
        "ours": ours,
        "ours one pass": lambda c: ours(c, 1.0),
        "torch eager": eager,
        "torch.compile": compiled,
        "Liger math": liger,
    },
    "linear": {
        "ours": ours,
        **({NATIVE: torch_native} if HAS_NATIVE else {}),
        "torch eager": eager,
        "torch.compile": compiled,
        "Liger math": liger,
        "CCE fallback": cce,
    },
}
WEIGHTED = frozenset({"ours", "ours one pass", "torch eager", "torch.compile", "Liger math", "CCE fallback"})
