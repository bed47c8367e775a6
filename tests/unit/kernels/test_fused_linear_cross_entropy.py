"""The chunked linear form against float64, and against the same sums over whole logits in torch's fp32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sdrrl_kernels import fused_linear_cross_entropy as fused
from sdrrl_kernels.api import linear_cross_entropy
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


def wide_addmm(total: Tensor, a: Tensor, b: Tensor, *, beta: float, out: Tensor, out_dtype: Any = None) -> Tensor:
    """CUDA's, as torch 2.10 and later have it: 16-bit factors, an fp32 summand."""
    assert a.dtype == b.dtype and (total.dtype == out.dtype == out_dtype or out_dtype is None)
    product = a.double() @ b.double()
    return out.copy_(product + beta * total.double() if beta else product)


def wide_mm(a: Tensor, b: Tensor, *, out: Tensor | None = None, out_dtype: Any = None) -> Tensor:
    """CUDA's, as torch 2.9 has it: an fp32 product of 16-bit factors, and no summand."""
    product = (a.double() @ b.double()).to(out_dtype or a.dtype)
    return product if out is None else out.copy_(product)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["cast", "mm", "addmm"])
def test_products_of_chunks_are_summed_as_if_in_fp32(
    way: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way that a torch of 2.9 to 2.13 has, on 40 chunks of one sign: no product is rounded to 16 bits."""
    monkeypatch.setattr(fused, "widening", lambda *_: way)
    monkeypatch.setattr(fused, "BLOCK", 10)
    if way != "cast":
        monkeypatch.setattr(torch, "mm", wide_mm)
        monkeypatch.setattr(torch, "addmm", wide_addmm)
    g = torch.Generator().manual_seed(0)
    gradient, hidden = torch.rand(400, 24, generator=g).to(dtype), torch.rand(400, 16, generator=g).to(dtype)
    total = torch.full((24, 16), float("nan"))
    for start in range(0, 400, 10):
        fused._accumulate(total, gradient[start : start + 10], hidden[start : start + 10], first=start == 0)
    torch.testing.assert_close(total.double(), gradient.double().t() @ hidden.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("into_main", [False, True])
def test_half_precision_over_chunks_is_rounded_once_or_not_at_all(into_main: bool, reduction: str) -> None:
    n, width, vocab = 80, 16, 24
    g = torch.Generator().manual_seed(0)
    hidden, table = torch.rand(n, width, generator=g).bfloat16(), torch.randn(vocab, width, generator=g).bfloat16()
    case = make(n, vocab, torch.bfloat16, 1)
    case.labels[:], case.weights = 0, torch.rand(n, generator=g)
    h, t = hidden.clone().requires_grad_(), table.clone().requires_grad_()
    if into_main:
        t.main_grad, t.grad_added_to_main_grad = torch.full((vocab, width), 0.5), False  # type: ignore[attr-defined]
    out = linear_cross_entropy(
        h, t, case.labels, case.weights, case.subset, SUBSETS,
        reduction=reduction, rows_per_chunk=16, into_main_grad=into_main,
    )  # fmt: skip
    out.loss.sum().backward()
    t64 = table.double().requires_grad_()
    logits = hidden.double() @ t64.t()
    logits = logits + ((hidden @ table.t()).double() - logits).detach()  # rounded by the output layer, as in the model
    reference_token_losses(logits, case.labels, case.weights.double()).sum().backward()
    found, once = (t.main_grad - 0.5, 0) if into_main else (t.grad, 1)  # type: ignore[attr-defined]
    error, scale = (found.double() - t64.grad).abs(), t64.grad.abs()
    # the logits' gradients are rounded once in any case: 80 of them, in random directions
    assert bool((error <= 2.0**-8 * (once * scale + 0.1 * scale.max())).all()), float(error.max())
    if into_main:
        assert t.grad_added_to_main_grad and not bool(t.grad.to_dense().any())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("device", "version", "want"),
    [
        ("cuda", "2.9.1+cu128", "mm"),
        ("cuda", "2.10.0", "addmm"),
        ("cuda", "2.13.0a0+git1", "addmm"),
        ("cpu", "2.9.0", "cast"),
        ("cpu", "2.13.0+cpu", "cast"),
    ],
)
def test_what_a_torch_offers_for_fp32_sums(device: str, version: str, want: str) -> None:
    assert fused.widening(device, version) == want


def test_gradient_goes_where_megatron_sums_it() -> None:
    """Added to what is there, twice; nothing for autograd where nobody asks for ``grad_added_to_main_grad``."""
    case = make(30, 40, torch.float32, 12)
    case.weights.clamp_(max=10)
    hidden, table = torch.randn(30, 8), torch.randn(40, 8)
    want = gradients(hidden, table, case, torch.tensor(1.0))[1:]
    weight = table.clone().requires_grad_()
    weight.main_grad = torch.ones(40, 8)  # type: ignore[attr-defined]
    for turn in (1, 2):
        h = hidden.clone().requires_grad_()
        out = linear_cross_entropy(
            h, weight, case.labels, case.weights, case.subset, SUBSETS, rows_per_chunk=8, into_main_grad=True
        )
        out.loss.backward()
        torch.testing.assert_close(weight.main_grad, 1 + turn * want[1])  # type: ignore[attr-defined]
        torch.testing.assert_close(h.grad, want[0])
        assert weight.grad is None


@pytest.mark.parametrize("case_of", ["16 bits", "another shape", "not asked for"])
def test_main_grad_that_does_not_fit_is_left_alone(case_of: str) -> None:
    case = make(10, 30, torch.float32, 13)
    hidden, table = torch.randn(10, 8), torch.randn(30, 8)
    weight = table.clone().requires_grad_()
    main = torch.zeros(30, 8, dtype=torch.bfloat16) if case_of == "16 bits" else torch.zeros(30, 8)
    weight.main_grad = main[:20] if case_of == "another shape" else main  # type: ignore[attr-defined]
    out = linear_cross_entropy(
        hidden, weight, case.labels, case.weights, case.subset, SUBSETS, into_main_grad=case_of != "not asked for"
    )
    out.loss.backward()
    assert weight.grad is not None and weight.grad.any() and not main.any()


def test_another_upstream_than_the_weights_gradient_was_added_for_is_refused() -> None:
    case = make(10, 30, torch.float32, 14)
    weight = torch.randn(30, 8).requires_grad_()
    weight.main_grad = torch.zeros(30, 8)  # type: ignore[attr-defined]
    hidden = torch.randn(10, 8).requires_grad_()
    out = linear_cross_entropy(hidden, weight, case.labels, case.weights, case.subset, SUBSETS, into_main_grad=True)
    with pytest.raises(ValueError, match=r"for an upstream gradient of 1\.0, and 0\.5 arrived"):
        (out.loss / 2).backward()


def test_evaluation_adds_nothing() -> None:
    case = make(10, 30, torch.float32, 15)
    weight = torch.randn(30, 8).requires_grad_()
    weight.main_grad = torch.zeros(30, 8)  # type: ignore[attr-defined]
    with torch.no_grad():
        linear_cross_entropy(
            torch.randn(10, 8), weight, case.labels, case.weights, case.subset, SUBSETS, into_main_grad=True
        )
    assert not weight.main_grad.any()  # type: ignore[attr-defined]
