"""A bias of the output layer in both forms of the loss, against float64: softcap, chunks, live rows, Megatron's sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sdrrl_kernels.api import cross_entropy, linear_cross_entropy
from tests.unit.kernels.loss_cases import SUBSETS, Case, make

pytestmark = pytest.mark.usefixtures("interpreter")
N, WIDTH, VOCAB, PADDED = 21, 12, 203, 232
BOUND = {torch.float32: 2e-6, torch.bfloat16: 2.0**-7}


def layer(dtype: torch.dtype) -> tuple[Case, list[Tensor]]:
    """Labels and weights, and (hidden, table, bias); what the padding of the vocabulary holds has no meaning."""
    case = make(N, VOCAB, dtype, 11)
    case.weights.clamp_(max=10)
    g = torch.Generator().manual_seed(2)
    hidden, table, bias = (torch.randn(*shape, generator=g) for shape in ((N, WIDTH), (PADDED, WIDTH), (PADDED,)))
    table *= 0.5
    bias *= 3
    bias[VOCAB:] = float("nan")
    return case, [t.to(dtype) for t in (hidden, table, bias)]


def by_hand(case: Case, tensors: list[Tensor], upstream: Tensor, cap: float | None) -> tuple[Tensor, list[Tensor]]:
    """(token losses, gradients of all three) by torch's own cross-entropy in float64, of logits rounded as they are."""
    hidden, table, bias = leaves = [t.double().requires_grad_() for t in tensors]
    logits = hidden @ table.t() + bias
    logits = logits + (torch.addmm(tensors[2], tensors[0], tensors[1].t()).double() - logits).detach()
    x = logits[:, :VOCAB]
    x = x if cap is None else cap * torch.tanh(x / cap)
    token = torch.nn.functional.cross_entropy(x, case.labels, reduction="none") * case.weights.double()
    (token * upstream.double()).sum().backward()
    return token.detach(), [t.grad for t in leaves]  # type: ignore[misc]


def check(found: Any, wanted: list[Tensor], dtype: torch.dtype) -> None:
    for ours, want in zip(found, wanted, strict=True):
        error, scale = (ours.double() - want).abs().max(), want.abs().max()
        assert float(scale) > 0 and float(error) <= BOUND[dtype] * float(scale), (float(error), float(scale))


def of_linear_form(
    case: Case, tensors: list[Tensor], upstream: Tensor, **options: Any
) -> tuple[Tensor, list[Tensor | None]]:
    leaves = [t.clone().requires_grad_() for t in tensors]
    rest = (case.labels, case.weights, case.subset, SUBSETS)
    out = linear_cross_entropy(*leaves[:2], *rest, bias=leaves[2], vocab_size=VOCAB, **options)
    (out.loss * upstream).sum().backward()
    return out.loss.detach(), [t.grad for t in leaves]


@pytest.mark.parametrize(
    ("kernel", "dtype", "reduction", "rows", "cap"),
    [
        *(
            ("torch", dtype, reduction, rows, cap)
            for dtype in BOUND
            for reduction in ("sum", "none")
            for rows, cap in ((4, 5.0), (100, None), (8, None))
        ),
        ("triton", torch.bfloat16, "sum", 8, 5.0),
        ("triton", torch.float32, "none", 8, None),
    ],
)
def test_linear_form(kernel: str, dtype: torch.dtype, reduction: str, rows: int, cap: float | None) -> None:
    case, tensors = layer(dtype)
    upstream = torch.linspace(-1, 2, N) if reduction == "none" else torch.tensor(0.37)
    options: dict[str, Any] = {"kernel": kernel, "reduction": reduction, "rows_per_chunk": rows, "softcap": cap}
    loss, found = of_linear_form(case, tensors, upstream, **options)
    token, wanted = by_hand(case, tensors, upstream, cap)
    assert float(loss.double().sum()) == pytest.approx(float(token.sum()), rel=2e-6)
    check(found, wanted, dtype)
    assert not bool(found[1][VOCAB:].any()) and not bool(found[2][VOCAB:].any())  # type: ignore[index]


@pytest.mark.parametrize(("kernel", "expected"), [("torch", None), ("torch", 0.37), ("triton", None)])
def test_logits_whose_layer_adds_it(kernel: str, expected: float | None) -> None:
    """The bias is in the logits, before the softcap; autograd sums the gradient that the loss leaves in their place."""
    case, tensors = layer(torch.bfloat16)
    leaves = [t.clone().requires_grad_() for t in tensors]
    logits = torch.addmm(leaves[2], leaves[0], leaves[1].t())
    rest = (case.labels, case.weights, case.subset, SUBSETS)
    options: dict[str, Any] = {"expected_upstream": expected, "kernel": kernel, "softcap": 30.0, "vocab_size": VOCAB}
    (cross_entropy(logits, *rest, **options).loss * 0.37).backward()
    check([t.grad for t in leaves], by_hand(case, tensors, torch.tensor(0.37), 30.0)[1], torch.bfloat16)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_gradient_goes_where_megatron_sums_it(reduction: str) -> None:
    """Added to what is there, in fp32 and over chunks; DistributedDataParallel is told so."""
    case, tensors = layer(torch.bfloat16)
    h, t, b = (x.clone().requires_grad_() for x in tensors)
    for x in (t, b):
        x.main_grad, x.grad_added_to_main_grad = torch.full(x.shape, 0.5), False  # type: ignore[attr-defined]
    rest = (case.labels, case.weights, case.subset, SUBSETS)
    options: dict[str, Any] = {"vocab_size": VOCAB, "rows_per_chunk": 8, "into_main_grad": True}
    linear_cross_entropy(h, t, *rest, bias=b, reduction=reduction, **options).loss.sum().backward()
    sums = [x.main_grad - 0.5 for x in (t, b)]  # type: ignore[attr-defined]
    check([h.grad, *sums], by_hand(case, tensors, torch.tensor(1.0), None)[1], torch.bfloat16)
    for x in (t, b):
        assert x.grad_added_to_main_grad and x.grad is not None and not x.grad.to_dense().any()  # type: ignore[attr-defined]


def test_chunks_are_summed_in_fp32() -> None:
    """512 rows with the same gradient, two a chunk: a sum in bf16 stands still where an addend is 1/512 of it."""
    n, vocab = 512, 8
    bias = torch.linspace(0, 1, vocab).bfloat16().requires_grad_()
    rest = (torch.zeros(n, dtype=torch.int64), torch.ones(n), torch.zeros(n, dtype=torch.int64), 1)
    hidden, table = torch.zeros(n, 4).bfloat16(), torch.zeros(vocab, 4).bfloat16()
    linear_cross_entropy(hidden, table, *rest, bias=bias, rows_per_chunk=2).loss.backward()
    each = torch.softmax(bias.detach().double(), 0) - torch.eye(vocab, dtype=torch.float64)[0]
    torch.testing.assert_close(bias.grad, (n * each.bfloat16().double()).bfloat16(), rtol=0, atol=0)


def test_sums_of_one_alone() -> None:
    """Only the bias has Megatron's sum, or only it is trained; a sum in 16 bits is left alone."""
    case, tensors = layer(torch.float32)
    wanted = by_hand(case, tensors, torch.tensor(1.0), None)[1]
    rest = (case.labels, case.weights, case.subset, SUBSETS)
    h, t, b = (x.clone().requires_grad_() for x in tensors)
    b.main_grad = torch.zeros(PADDED)  # type: ignore[attr-defined]
    out = linear_cross_entropy(h, t, *rest, bias=b, vocab_size=VOCAB, rows_per_chunk=8, into_main_grad=True)
    with pytest.raises(ValueError, match="is in main_grad for an upstream gradient"):
        (out.loss / 2).backward(retain_graph=True)
    out.loss.backward()
    check([h.grad, t.grad, b.main_grad], wanted, torch.float32)  # type: ignore[attr-defined]
    assert b.grad is None
    b.main_grad = torch.zeros(PADDED, dtype=torch.bfloat16)  # type: ignore[attr-defined]
    frozen = [x.detach() for x in (h, t)]
    linear_cross_entropy(*frozen, *rest, bias=b, vocab_size=VOCAB, into_main_grad=True).loss.backward()
    check([b.grad], wanted[2:], torch.float32)
    assert not b.main_grad.any()  # type: ignore[attr-defined]
    b.grad = None
    linear_cross_entropy(h, t, *rest, bias=b.detach(), vocab_size=VOCAB).loss.backward()
    assert b.grad is None


@pytest.mark.parametrize("bias", [torch.zeros(PADDED - 1), torch.zeros(1, PADDED), torch.zeros(PADDED).bfloat16()])
def test_a_bias_that_does_not_fit_is_refused(bias: Tensor) -> None:
    case, (hidden, table, _) = layer(torch.float32)
    with pytest.raises(ValueError, match=r"bias must be \[232\] torch.float32 on cpu like the rows of weight"):
        linear_cross_entropy(hidden, table, case.labels, case.weights, case.subset, SUBSETS, bias=bias)


@pytest.mark.parametrize("n", [0, 5])
def test_no_row_with_loss_and_no_gradient_wanted(n: int) -> None:
    case = make(n, 30, torch.bfloat16, 8, "ignored")
    h, t = torch.randn(n, 8).bfloat16(), torch.randn(30, 8).bfloat16()
    b = torch.randn(30).bfloat16().requires_grad_()
    rest = (case.labels, case.weights, case.subset, SUBSETS)
    linear_cross_entropy(h, t, *rest, bias=b).loss.backward()
    assert b.grad is not None and not b.grad.any()
    with torch.no_grad():
        assert float(linear_cross_entropy(h, t, *rest, bias=b).loss) == 0
