"""Properties that hold for any input, found by hypothesis, on both backends (the interpreter runs small tiles)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdrrl_kernels.reference import IGNORE_INDEX
from tests.unit.kernels.loss_cases import SUBSETS, make, run

ONE = torch.tensor(1.0)
shared = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
inputs = {
    "n": st.integers(1, 12),
    "vocab": st.integers(2, 300),
    "seed": st.integers(0, 10**6),
    "kernel": st.sampled_from(["torch", "triton"]),
}


@pytest.mark.usefixtures("interpreter")
@shared
@given(shift=st.floats(-50, 50), **inputs)
def test_a_shift_of_all_logits_changes_nothing(n: int, vocab: int, seed: int, kernel: str, shift: float) -> None:
    case = make(n, vocab, torch.float32, seed)
    losses, gradient, _ = run(case, kernel, ONE, reduction="none")
    case.logits = case.logits + shift
    shifted, gradient_shifted, _ = run(case, kernel, ONE, reduction="none")
    # fp32 logits of size 70 are themselves rounded to 4e-6 by the shift
    torch.testing.assert_close(
        shifted / case.weights.clamp(min=1e-9), losses / case.weights.clamp(min=1e-9), rtol=1e-5, atol=3e-5
    )
    scale = case.weights[:, None].clamp(min=1e-9)
    torch.testing.assert_close(gradient_shifted / scale, gradient / scale, rtol=1e-4, atol=2e-5)


@pytest.mark.usefixtures("interpreter")
@shared
@given(smoothing=st.sampled_from([0.0, 0.2]), **inputs)
def test_gradient_rows_sum_to_zero(n: int, vocab: int, seed: int, kernel: str, smoothing: float) -> None:
    """Without z-loss, which pushes all logits of a row in one direction."""
    case = make(n, vocab, torch.float32, seed)
    _, gradient, _ = run(case, kernel, ONE, label_smoothing=smoothing)
    assert bool((gradient.double().sum(1).abs() <= 2e-6 * case.weights.double() + 1e-30).all())


@pytest.mark.usefixtures("interpreter")
@shared
@given(**inputs)
def test_rows_are_independent_of_their_order(n: int, vocab: int, seed: int, kernel: str) -> None:
    case = make(n, vocab, torch.bfloat16, seed)
    losses, gradient, out = run(case, kernel, ONE, reduction="none")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for name in ("logits", "labels", "weights", "subset"):
        setattr(case, name, getattr(case, name)[order])
    losses_p, gradient_p, out_p = run(case, kernel, ONE, reduction="none")
    assert torch.equal(losses_p, losses[order])
    assert torch.equal(gradient_p, gradient[order])
    assert torch.equal(out_p.subset_counts, out.subset_counts)
    torch.testing.assert_close(out_p.subset_sums, out.subset_sums, rtol=1e-6, atol=0)


@pytest.mark.usefixtures("interpreter")
@shared
@given(**inputs)
def test_sums_split_the_loss(n: int, vocab: int, seed: int, kernel: str) -> None:
    case = make(n, vocab, torch.float32, seed)
    loss, _, out = run(case, kernel, ONE)
    losses, _, _ = run(case, kernel, ONE, reduction="none")
    total = float(losses.double().sum())
    assert float(loss) == pytest.approx(total, rel=1e-6, abs=1e-30)
    assert float(out.subset_sums.double().sum()) == pytest.approx(total, rel=1e-6, abs=1e-30)
    kept = case.labels != IGNORE_INDEX
    assert int(out.subset_counts.sum()) == int(kept.sum())
    assert out.subset_sums.shape == (SUBSETS,)


@pytest.mark.usefixtures("interpreter")
@shared
@given(**inputs)
def test_backends_agree(n: int, vocab: int, seed: int, kernel: str) -> None:
    case = make(n, vocab, torch.float16, seed, "strided")
    found = {k: run(case, k, ONE, reduction="none") for k in ("torch", "triton")}
    torch.testing.assert_close(found["torch"][0], found["triton"][0], rtol=2e-6, atol=1e-6 * float(case.weights.max()))
    torch.testing.assert_close(found["torch"][1], found["triton"][1], rtol=2e-3, atol=1e-7)
