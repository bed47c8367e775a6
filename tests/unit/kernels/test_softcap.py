"""The softcap of Gemma 2 inside the loss, against float64: padding gets no probability, weights are inside."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdrrl_kernels.api import cross_entropy, linear_cross_entropy
from tests.unit.kernels.loss_cases import SUBSETS, make, run

pytestmark = pytest.mark.usefixtures("interpreter")
KERNELS = pytest.mark.parametrize("kernel", ["torch", "triton"])


def by_hand(logits: torch.Tensor, case: Any, cap: float, upstream: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Token losses by torch's own cross-entropy of the capped vocabulary, in the precision of ``logits``."""
    x = cap * torch.tanh(logits[:, : case.vocab] / cap)
    token = torch.nn.functional.cross_entropy(x, case.labels, reduction="none", label_smoothing=smoothing)
    return token * case.weights.to(x.dtype) * upstream.to(x.dtype)


@KERNELS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"expected_upstream": 0.37}, {"in_place": False, "label_smoothing": 0.1}])
def test_loss_and_gradient(kernel: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
    case = make(12, 1003, dtype, 4, "normal", 1152)  # padding of NaN, no whole tile
    case.weights.clamp_(max=10)
    case.logits[:, :1003] *= 8  # far into the saturation of a cap of 30, and some near 0
    upstream, smoothing = torch.tensor(0.37), options.get("label_smoothing", 0.0)
    loss, gradient, _ = run(case, kernel, upstream, softcap=30.0, **options)
    errors = []
    for precision in (torch.float64, torch.float32):
        x = case.logits.to(precision).requires_grad_()
        token = by_hand(x, case, 30.0, upstream, smoothing)
        token.sum().backward()
        errors.append(
            (
                token.detach().sum() / 0.37,
                torch.nan_to_num(x.grad.to(dtype).double() if precision is torch.float32 else x.grad),
            )
        )
    (want, exact), (_, plain) = errors
    live = (case.labels != -100) & (case.weights != 0)
    row = case.weights.double()[live, None]
    worst = [float(((g.double() - exact)[live].abs() / row).max()) for g in (gradient, plain)]
    assert float(loss) == pytest.approx(float(want), rel=2e-6)
    assert worst[0] <= 1.5 * worst[1] + 2e-7, worst
    assert bool((gradient[:, 1003:] == 0).all()) and bool((gradient[~live] == 0).all())


@KERNELS
def test_linear_form_and_masked_logits(kernel: str) -> None:
    case = make(9, 40, torch.float32, 5)
    case.weights.clamp_(max=10)
    g = torch.Generator().manual_seed(0)
    hidden, table = torch.randn(9, 6, generator=g) * 9, torch.randn(48, 6, generator=g)
    h, t = hidden.clone().requires_grad_(), table.clone().requires_grad_()
    rest = (case.labels, case.weights, case.subset, SUBSETS)
    linear_cross_entropy(h, t, *rest, vocab_size=40, rows_per_chunk=4, softcap=5.0, kernel=kernel).loss.backward()
    h64, t64 = hidden.double().requires_grad_(), table.double().requires_grad_()
    by_hand(h64 @ t64.t(), case, 5.0, torch.tensor(1.0), 0.0).sum().backward()
    torch.testing.assert_close(h.grad.double(), h64.grad, rtol=1e-4, atol=2e-6 * float(h64.grad.abs().max()))
    torch.testing.assert_close(t.grad.double(), t64.grad, rtol=1e-4, atol=2e-6 * float(t64.grad.abs().max()))


@pytest.mark.parametrize("cap", [0.0, -1.0, float("inf"), float("nan")])
def test_a_cap_that_is_none_is_refused(cap: float) -> None:
    case = make(2, 8, torch.float32)
    with pytest.raises(ValueError, match="softcap must be positive and finite"):
        cross_entropy(case.logits, case.labels, case.weights, case.subset, SUBSETS, softcap=cap)
