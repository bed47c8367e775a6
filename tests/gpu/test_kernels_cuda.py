"""The compiled kernels on a GPU; skipped where there is none (the interpreter tests run the same code there)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sdrrl_kernels.api import cross_entropy, linear_cross_entropy
from sdrrl_kernels.reference import reference_token_losses
from tests.unit.kernels.peer_adapters import liger_case, quack_case

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, torch sees none"),
]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.fixture
def no_host_sync() -> Iterator[None]:
    """Any call that waits for the device raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def _inputs(n: int, vocab: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    g = torch.Generator(device="cuda").manual_seed(0)
    logits = torch.randn(n, vocab, generator=g, device="cuda", dtype=torch.float32).mul_(4).to(dtype)
    labels = torch.randint(0, vocab, (n,), generator=g, device="cuda")
    labels[::5] = -100
    weights = torch.rand(n, generator=g, device="cuda")
    return logits, labels, weights, torch.randint(0, 6, (n,), generator=g, device="cuda")


@pytest.mark.parametrize("vocab", [128, 1000, 32000, 32003, 49152, 64000, 128256, 256000])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("expected", [None, 0.37])
def test_against_float64(vocab: int, dtype: torch.dtype, expected: float | None) -> None:
    logits, labels, weights, subset = _inputs(64, vocab, dtype)
    x = logits.double().requires_grad_()
    token = reference_token_losses(x, labels, weights.double())
    (token.sum() * 0.37).backward()
    assert x.grad is not None
    base = logits.clone().requires_grad_()
    out = cross_entropy(base * 1, labels, weights, subset, 6, kernel="triton", expected_upstream=expected)
    (out.loss * 0.37).backward()
    assert base.grad is not None
    assert float(out.loss.detach()) == pytest.approx(float(token.sum()), rel=1e-6)
    half_ulp = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype]
    bound = weights.double()[:, None] * 0.37 * 1.01 * half_ulp + 6e-8
    assert bool(((base.grad.double() - x.grad).abs() <= bound).all())


@pytest.mark.usefixtures("no_host_sync")
@pytest.mark.parametrize("options", [{}, {"expected_upstream": 1.0}, {"reduction": "none"}])
def test_never_waits_for_the_device(options: dict[str, object]) -> None:
    logits, labels, weights, subset = _inputs(256, 32000, torch.bfloat16)
    out = cross_entropy(logits.requires_grad_() * 1, labels, weights, subset, 6, **options)  # type: ignore[arg-type]
    out.loss.sum().backward()
    table = torch.randn(32000, 64, device="cuda", dtype=torch.bfloat16).requires_grad_()
    hidden = torch.randn(256, 64, device="cuda", dtype=torch.bfloat16).requires_grad_()
    bias = torch.randn(32000, device="cuda", dtype=torch.bfloat16).requires_grad_()
    linear_cross_entropy(hidden, table, labels, weights, subset, 6, bias=bias).loss.backward()


def test_same_bits_every_time() -> None:
    found = []
    for _ in range(3):
        logits, labels, weights, subset = _inputs(2048, 128256, torch.bfloat16)
        base = logits.requires_grad_()
        out = cross_entropy(base * 1, labels, weights, subset, 6)
        out.loss.backward()
        assert base.grad is not None
        found.append((out.loss.detach(), out.subset_sums, base.grad))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_memory_is_the_logits_alone() -> None:
    logits, labels, weights, subset = _inputs(4096, 128256, torch.bfloat16)
    copy = logits.requires_grad_() * 1
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    cross_entropy(copy, labels, weights, subset, 6).loss.backward(inputs=[copy])
    assert torch.cuda.max_memory_allocated() - before < 16 << 20


@pytest.mark.parametrize("n", [192, 668, 1024, 1128, 4096, 32768, 128256, 262144])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 289])
@pytest.mark.parametrize("has_weight", [False, True])
def test_quack_grid(n: int, dtype: torch.dtype, m: int, has_weight: bool) -> None:
    quack_case(m, n, dtype, has_weight, "cuda", "triton")


@pytest.mark.parametrize("rows", [2 * 4096, 3 * 423])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_liger_grid(rows: int, dtype: torch.dtype, reduction: str) -> None:
    liger_case(rows, 32000, dtype, "cuda", "triton", reduction=reduction)
