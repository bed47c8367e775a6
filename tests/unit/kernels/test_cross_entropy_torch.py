"""The torch kernel against the float64 reference: values, gradients, padding, ignored rows, bad input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.cross_entropy_torch import vocab_parallel_cross_entropy
from kernels.reference import IGNORE_INDEX, reference_cross_entropy


def _inputs(n, vocab, seed, dtype=torch.float32, scale=4.0):
    g = torch.Generator().manual_seed(seed)
    logits = (torch.randn(n, vocab, generator=g) * scale).to(dtype)
    labels = torch.randint(0, vocab, (n,), generator=g)
    labels[torch.rand(n, generator=g) < 0.3] = IGNORE_INDEX
    weights = torch.rand(n, generator=g) * torch.tensor(10.0) ** torch.randint(-6, 4, (n,), generator=g)
    subset = torch.randint(0, 6, (n,), generator=g)
    return logits, labels, weights, subset


@pytest.mark.parametrize("vocab", [128, 1000, 32003, 49152])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_matches_float64(vocab, dtype):
    logits, labels, weights, subset = _inputs(37, vocab, 0, dtype)
    exact = logits.double().requires_grad_()
    loss64, sums64 = reference_cross_entropy(exact, labels, weights.double(), subset, 6)
    upstream = 0.37
    (loss64 * upstream).backward()
    leaf = logits.clone().requires_grad_()
    loss, sums = vocab_parallel_cross_entropy(leaf * 1, labels, weights, subset, 6)
    (loss * upstream).backward()
    torch.testing.assert_close(loss.double(), loss64.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(sums.double(), sums64.detach(), rtol=1e-6, atol=1e-9)
    step = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    row_scale = (weights * upstream).double()[:, None]
    subnormal = 1e-7 if dtype == torch.float16 else 0.0
    error = (leaf.grad.double() - exact.grad).abs()
    assert bool((error <= step * row_scale + subnormal).all())
    assert bool((leaf.grad[labels == IGNORE_INDEX] == 0).all())


def test_ignored_rows_do_not_leak_nan():
    logits, labels, weights, subset = _inputs(8, 64, 1)
    labels[:] = 3
    labels[2] = IGNORE_INDEX
    logits[2] = float("nan")
    leaf = logits.requires_grad_()
    loss, _ = vocab_parallel_cross_entropy(leaf * 1, labels, weights, subset, 6)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(leaf.grad).all()


def test_all_ignored_is_zero():
    logits, labels, weights, subset = _inputs(5, 64, 2)
    labels[:] = IGNORE_INDEX
    loss, sums = vocab_parallel_cross_entropy(logits, labels, weights, subset, 6)
    assert loss.item() == 0
    assert sums.tolist() == [0] * 6


def test_padded_columns_get_no_probability():
    logits, labels, weights, subset = _inputs(9, 100, 3)
    labels = labels.clamp(max=89)
    padded = torch.cat([logits[:, :90], torch.full((9, 10), 1e4)], 1).requires_grad_()
    loss, _ = vocab_parallel_cross_entropy(padded * 1, labels, weights, subset, 6, vocab_size=90)
    loss.backward()
    expected, _ = reference_cross_entropy(logits[:, :90].double(), labels, weights.double(), subset, 6)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    assert bool((padded.grad[:, 90:] == 0).all())


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 40), vocab=st.integers(2, 300), seed=st.integers(0, 10**6), shift=st.floats(-50, 50))
def test_properties(n, vocab, seed, shift):
    logits, labels, weights, subset = _inputs(n, vocab, seed)
    leaf = logits.clone().requires_grad_()
    loss, sums = vocab_parallel_cross_entropy(leaf * 1, labels, weights, subset, 6)
    loss.backward()
    scale = float(weights.sum()) * 60 + 1e-6
    assert abs(float(sums.sum() - loss.detach())) <= 1e-6 * scale
    assert float(leaf.grad.sum(1).abs().max()) <= 1e-5 * float(weights.max()) + 1e-12
    shifted, _ = vocab_parallel_cross_entropy(logits + shift, labels, weights, subset, 6)
    assert abs(float(shifted - loss.detach())) <= 1e-5 * scale


def test_wrong_input_is_named():
    logits, labels, weights, subset = _inputs(4, 16, 4)
    with pytest.raises(ValueError, match="weights must be fp32"):
        vocab_parallel_cross_entropy(logits, labels, weights.double(), subset, 6)
    with pytest.raises(ValueError, match="labels must have shape"):
        vocab_parallel_cross_entropy(logits, labels[:2], weights, subset, 6)
    with pytest.raises(ValueError, match="logits must be"):
        vocab_parallel_cross_entropy(logits.double(), labels, weights, subset, 6)
