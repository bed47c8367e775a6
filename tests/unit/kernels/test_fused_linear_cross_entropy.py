"""The chunked linear form against float64, and against the same sums over whole logits in torch's fp32."""

from __future__ import annotations

import pytest
import torch

from sdrrl_kernels.api import linear_cross_entropy
from sdrrl_kernels.fused_linear_cross_entropy import chunk_rows
from sdrrl_kernels.reference import reference_token_losses
from tests.unit.kernels.loss_cases import SUBSETS, make


def gradients(
    hidden: torch.Tensor, table: torch.Tensor, case: object, upstream: torch.Tensor, **options: object
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    h, t = hidden.clone().requires_grad_(), table.clone().requires_grad_()
    out = linear_cross_entropy(
        h,
        t,
        case.labels,
        case.weights,
        case.subset,
        SUBSETS,
        vocab_size=case.vocab,
        **options,  # type: ignore[attr-defined, arg-type]
    )
    (out.loss * upstream).sum().backward()
    assert h.grad is not None
    assert t.grad is not None
    return out.loss.detach(), h.grad, t.grad


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_as_good_as_whole_logits(kernel: str, dtype: torch.dtype, reduction: str, smoothing: float) -> None:
    n, width, vocab, padded = 22, 24, 251, 256
    case = make(n, vocab, dtype, 3)
    case.weights.clamp_(max=10)
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, width, generator=g).to(dtype)
    table = (torch.randn(padded, width, generator=g) * 0.3).to(dtype)
    upstream = torch.randn(n, generator=g) if reduction == "none" else torch.tensor(0.37)
    loss, d_hidden, d_table = gradients(
        hidden, table, case, upstream, kernel=kernel, reduction=reduction, rows_per_chunk=8, label_smoothing=smoothing
    )
    h, t = hidden.double().requires_grad_(), table.double().requires_grad_()
    # logits are rounded to their dtype by the output layer, here as in the plain model
    logits = (h @ t.t()) + ((hidden @ table.t()).double() - h.detach() @ t.detach().t())
    token = reference_token_losses(logits[:, :vocab], case.labels, case.weights.double(), -100, smoothing)
    (token * upstream.double()).sum().backward()
    assert h.grad is not None
    assert t.grad is not None
    assert float(loss.double().sum()) == pytest.approx(float(token.detach().sum()), rel=2e-6)
    bound = {torch.float32: 2e-6, torch.bfloat16: 2.0**-7}[dtype]
    assert float((d_hidden.double() - h.grad).abs().max()) <= bound * float(h.grad.abs().max())
    assert float((d_table.double() - t.grad).abs().max()) <= bound * float(t.grad.abs().max())
    assert bool((d_table[vocab:] == 0).all())


def test_weight_inside_is_not_weight_afterwards() -> None:
    """Token weights change the direction of the weight's gradient; a kernel that scales afterwards fails this."""
    case = make(16, 40, torch.float32, 5)
    case.labels = case.labels.abs() % 40
    hidden, table = torch.randn(16, 8), torch.randn(40, 8)
    case.weights = torch.ones(16)
    flat = gradients(hidden, table, case, torch.tensor(1.0))[2]
    case.weights = torch.linspace(0, 2, 16)
    weighted = gradients(hidden, table, case, torch.tensor(1.0))[2]
    cosine = torch.nn.functional.cosine_similarity(flat.flatten(), weighted.flatten(), dim=0)
    assert float(cosine) < 0.99


def test_chunks_do_not_change_the_result() -> None:
    case = make(70, 90, torch.float32, 6)
    hidden, table = torch.randn(70, 12), torch.randn(90, 12)
    one, many = (gradients(hidden, table, case, torch.tensor(1.0), rows_per_chunk=rows) for rows in (1000, 7))
    for a, b in zip(one, many, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(a.abs().max()))


@pytest.mark.parametrize("frozen", ["hidden", "table"])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_frozen_side_gets_no_gradient(frozen: str, reduction: str) -> None:
    case = make(10, 30, torch.float32, 7)
    tensors = {"hidden": torch.randn(10, 8), "table": torch.randn(30, 8)}
    for name, t in tensors.items():
        t.requires_grad_(name != frozen)
    out = linear_cross_entropy(
        tensors["hidden"], tensors["table"], case.labels, case.weights, case.subset, SUBSETS, reduction=reduction
    )
    out.loss.sum().backward()
    assert tensors[frozen].grad is None
    assert all(t.grad is not None for name, t in tensors.items() if name != frozen)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_all_ignored_and_empty(reduction: str) -> None:
    for n in (5, 0):
        case = make(n, 30, torch.bfloat16, 8, "ignored")
        hidden, table = torch.randn(n, 8).bfloat16(), torch.randn(30, 8).bfloat16()
        loss, d_hidden, d_table = gradients(hidden, table, case, torch.tensor(1.0), reduction=reduction)
        assert float(loss.sum()) == 0
        assert not bool(d_hidden.any())
        assert not bool(d_table.any())


def test_second_backward_is_refused() -> None:
    case = make(10, 30, torch.float32, 9)
    hidden, table = torch.randn(10, 8).requires_grad_(), torch.randn(30, 8)
    out = linear_cross_entropy(hidden, table, case.labels, case.weights, case.subset, SUBSETS)
    out.loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.loss.backward()


def test_chunk_rule() -> None:
    assert chunk_rows(4096, 49152, 576, 2, "cpu") == 512
    assert chunk_rows(5000, 49152, 576, 2, "cpu") == 512
    assert chunk_rows(1024, 49152, 576, 2, "cpu") == 1024  # the fp32 gradient would outweigh the logits
    assert chunk_rows(16384, 131072, 4096, 2, "cuda") == 2048
    assert chunk_rows(10, 10**9, 4096, 4, "cuda") == 10
    assert chunk_rows(0, 32000, 64, 2, "cuda") == 1
    assert chunk_rows(4096, 32000, 64, 2, "cuda", rows=5) == 5
