"""Inputs and yardsticks of the kernel tests: the float64 reference, and torch's fp32 cross-entropy to keep up with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sdrrl_kernels.api import cross_entropy
from sdrrl_kernels.reference import IGNORE_INDEX, reference_token_losses

SUBSETS = 6
UPSTREAM = 0.37
HALF_ULP = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
"""Relative error of one rounding to nearest."""
SMALLEST = {torch.float32: 2.0**-149, torch.bfloat16: 2.0**-133, torch.float16: 2.0**-24}
"""Spacing of subnormal numbers: what one rounding may cost a value that is almost nothing."""


@dataclass
class Case:
    logits: Tensor
    labels: Tensor
    weights: Tensor
    subset: Tensor
    vocab: int
    options: dict[str, Any] = field(default_factory=dict)


def make(
    n: int, vocab: int, dtype: torch.dtype, seed: int = 0, kind: str = "normal", padded: int | None = None
) -> Case:
    """``kind``: normal, extreme (+-1e4, -inf entries), ignored (every label), strided (rows of a wider buffer)."""
    g = torch.Generator().manual_seed(seed)
    width = padded or vocab
    wide = torch.randn(n, width + (24 if kind == "strided" else 0), generator=g) * 4
    labels = torch.randint(0, vocab, (n,), generator=g)
    if kind == "extreme":
        limit = 1e4
        wide[::2] = wide[::2].sign() * limit
        wide[:, 1::7] = float("-inf")
        labels = torch.where(labels % 7 == 1, labels - 1, labels)
    labels[torch.rand(n, generator=g) < 0.3] = IGNORE_INDEX
    if kind == "ignored":
        labels[:] = IGNORE_INDEX
    exponents = torch.randint(-8, 5, (n,), generator=g)
    weights = torch.rand(n, generator=g).add(0.1) * torch.tensor(10.0) ** exponents
    weights[torch.rand(n, generator=g) < 0.1] = 0
    logits = wide.to(dtype)[:, :width]
    if padded:
        logits[:, vocab:] = float("nan")
    return Case(logits, labels, weights, torch.randint(0, SUBSETS, (n,), generator=g), vocab)


def leaf(case: Case) -> Tensor:
    """Leaf with the logits' own strides, so that a test of strided rows tests strided rows."""
    base = torch.empty_strided(case.logits.shape, case.logits.stride(), dtype=case.logits.dtype)
    return base.copy_(case.logits).requires_grad_()


class _Through(torch.autograd.Function):
    """A non-leaf with the strides of its input; the gradient is kept before any consumer may touch it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, box: list[Tensor]) -> Tensor:
        ctx.box = box
        out = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
        return out.copy_(x)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> tuple[Tensor, None]:
        ctx.box.append(g[0].clone())
        return g[0], None


def run(case: Case, kernel: str, upstream: Tensor, **options: Any) -> tuple[Tensor, Tensor, Any]:
    """(token losses or loss, gradient, output) of our kernel."""
    box: list[Tensor] = []
    logits = _Through.apply(leaf(case), box)
    out = cross_entropy(
        logits, case.labels, case.weights, case.subset, SUBSETS, vocab_size=case.vocab, kernel=kernel, **options
    )
    (out.loss * upstream).sum().backward()
    return out.loss.detach(), box[0], out


def exact(case: Case, upstream: Tensor, label_smoothing: float = 0.0, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
    """float64 token losses [n] and gradient [n, vocab]; skipped rows have gradient 0 whatever their logits."""
    x = case.logits[:, : case.vocab].double().requires_grad_()
    token = reference_token_losses(x, case.labels, case.weights.double(), IGNORE_INDEX, label_smoothing, z_loss)
    (token * upstream.double()).sum().backward()
    assert x.grad is not None
    return token.detach(), torch.nan_to_num(x.grad)


def torch_fp32(case: Case, upstream: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """The same by torch: cross_entropy in fp32 on the given logits, autograd back to their dtype."""
    x = case.logits[:, : case.vocab].clone().requires_grad_()
    token = F.cross_entropy(
        x.float(), case.labels, reduction="none", ignore_index=IGNORE_INDEX, label_smoothing=label_smoothing
    )
    token = token * case.weights
    (token * upstream).sum().backward()
    assert x.grad is not None
    return token.detach(), x.grad


def assert_no_worse_than_torch(case: Case, kernel: str, per_token: bool, **options: Any) -> None:
    """Token losses and gradients: error against float64 <= 1.5 x that of torch's fp32 cross-entropy + one rounding.

    The rounding: torch may happen to hit the exact result of a row, which no rule could hold another kernel to.
    Errors are taken relative to a row's weight, else the row with weight 1e4 would hide all others.
    """
    n = case.logits.shape[0]
    g = torch.Generator().manual_seed(1)
    upstream = torch.randn(n, generator=g) if per_token else torch.tensor(UPSTREAM)
    losses, gradient, out = run(case, kernel, upstream, reduction="none" if per_token else "sum", **options)
    losses64, gradient64 = exact(case, upstream)
    losses32, gradient32 = torch_fp32(case, upstream)
    row = (case.weights * upstream).double().abs()
    live = (case.labels != IGNORE_INDEX) & (case.weights != 0)
    assert bool((gradient[~live] == 0).all())
    assert bool((gradient[:, case.vocab :] == 0).all())
    if not bool(live.any()):
        assert float(losses.abs().sum()) == 0
        return
    dtype = case.logits.dtype

    def worst(found: Tensor) -> float:
        return float(((found[live].double() - gradient64[live]).abs() / row[live, None]).max())

    floor = float((gradient64[live].abs() / row[live, None]).max()) * HALF_ULP[dtype]
    floor += float((SMALLEST[dtype] / row[live]).max())
    assert worst(gradient[:, : case.vocab]) <= 1.5 * worst(gradient32) + (floor if dtype == torch.float32 else 0) + (
        float((SMALLEST[dtype] / row[live]).max())
    ), (worst(gradient[:, : case.vocab]), worst(gradient32), floor)
    if per_token:
        weight = case.weights.double()[live]
        scale = (losses64[live].abs() / weight).max() * HALF_ULP[torch.float32] * 2
        ours = ((losses[live].double() - losses64[live]).abs() / weight).max()
        theirs = ((losses32[live].double() - losses64[live]).abs() / weight).max()
        assert float(ours) <= 1.5 * float(theirs) + float(scale)
    else:
        total = float(losses64.sum())
        assert abs(float(losses) - total) <= 1.5 * abs(float(losses32.sum()) - total) + 4e-7 * float(
            losses64.abs().sum()
        )
        sums = torch.zeros(SUBSETS, dtype=torch.float64).index_add_(0, case.subset, losses64)
        torch.testing.assert_close(out.subset_sums.double(), sums, rtol=4e-7, atol=4e-7 * float(losses64.abs().sum()))
        counts = torch.bincount(case.subset[case.labels != IGNORE_INDEX], minlength=SUBSETS)
        assert out.subset_counts.tolist() == counts.tolist()
