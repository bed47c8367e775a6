"""The loss as a trainer uses it: errors, second backward passes, recompute, accumulation, compile, views, checks."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from sdrrl_kernels.api import cross_entropy, linear_cross_entropy, pick_backend
from sdrrl_kernels.reference import reference_token_losses
from tests.unit.kernels.loss_cases import SUBSETS, Case, exact, make


def loss_of(case: Case, logits: torch.Tensor, **options: object) -> torch.Tensor:
    return cross_entropy(
        logits,
        case.labels,
        case.weights,
        case.subset,
        SUBSETS,
        vocab_size=case.vocab,
        **options,  # type: ignore[arg-type]
    ).loss


def test_gradcheck_of_the_reference() -> None:
    case = make(5, 11, torch.float32, 1)
    weights = case.weights.double().clamp(max=10)
    x = case.logits.double().requires_grad_()
    for smoothing, z in ((0.0, 0.0), (0.1, 0.0), (0.0, 1e-2), (0.1, 1e-2)):
        assert torch.autograd.gradcheck(
            lambda t, s=smoothing, z=z: reference_token_losses(t, case.labels, weights, -100, s, z), x
        )


def test_reference_is_torchs_cross_entropy() -> None:
    case = make(20, 50, torch.float32, 2)
    x = case.logits.double()
    for smoothing in (0.0, 0.3):
        want = torch.nn.functional.cross_entropy(x, case.labels, reduction="none", label_smoothing=smoothing)
        got = reference_token_losses(x, case.labels, case.weights.double(), -100, smoothing)
        torch.testing.assert_close(got, want * case.weights)


@pytest.mark.parametrize("expected", [None, 1.0])
def test_second_use_of_overwritten_logits_is_refused(expected: float | None) -> None:
    case = make(4, 32, torch.float32)
    base = case.logits.clone().requires_grad_()
    loss = loss_of(case, base * 1, expected_upstream=expected)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_other_user_of_the_logits_is_warned_by_autograd() -> None:
    case = make(4, 32, torch.float32)
    base = case.logits.clone().requires_grad_()
    logits = base * 1
    other = logits.exp().sum() + (logits**2).sum()
    total = loss_of(case, logits, expected_upstream=1.0) + other
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_not_in_place_allows_a_second_backward_and_a_leaf() -> None:
    case = make(6, 40, torch.float32)
    leaf = case.logits.clone().requires_grad_()
    loss = loss_of(case, leaf, in_place=False)
    loss.backward(retain_graph=True)
    assert leaf.grad is not None
    once = leaf.grad.clone()
    loss.backward()
    torch.testing.assert_close(leaf.grad, 2 * once)
    assert torch.equal(leaf.detach(), case.logits)
    with pytest.raises(ValueError, match="leaf"):
        loss_of(case, leaf)


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize("expected", [None, 1.0])
def test_int32_labels_and_subsets_are_the_same_labels(kernel: str, expected: float | None) -> None:
    case = make(9, 130, torch.bfloat16, 4)
    found = []
    for dtype in (torch.int64, torch.int32):
        base = case.logits.clone().requires_grad_()
        out = cross_entropy(
            base * 1,
            case.labels.to(dtype),
            case.weights,
            case.subset.to(dtype),
            SUBSETS,
            checks=True,
            return_logsumexp=True,
            expected_upstream=expected,
            kernel=kernel,
        )
        out.loss.backward()
        found.append([out.loss, out.subset_sums, out.subset_counts, out.logsumexp, base.grad])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_without_gradient_the_logits_stay() -> None:
    case = make(6, 40, torch.float32)
    before = case.logits.clone()
    with torch.no_grad():
        loss_of(case, case.logits, expected_upstream=1.0)
    loss_of(case, case.logits)
    assert torch.equal(case.logits, before)


def test_sequence_first_view_of_an_output_layer() -> None:
    """Megatron hands over [s, b, V] from a custom autograd node; the loss gets a view of it."""
    case = make(12, 64, torch.bfloat16)
    hidden = torch.randn(4, 3, 8, dtype=torch.bfloat16)
    table = torch.randn(64, 8, dtype=torch.bfloat16).requires_grad_()

    class Layer(torch.autograd.Function):
        @staticmethod
        def forward(ctx, h, w):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(h)
            return h @ w.t()

        @staticmethod
        def backward(ctx, g):  # type: ignore[no-untyped-def]
            (h,) = ctx.saved_tensors
            return None, g.flatten(0, 1).t() @ h.flatten(0, 1)

    for expected in (None, 1.0):
        table.grad = None
        loss_of(case, Layer.apply(hidden, table).view(12, 64), expected_upstream=expected).backward()
        double = table.detach().double().requires_grad_()
        logits = (hidden.flatten(0, 1) @ table.detach().t()).double() - (
            hidden.flatten(0, 1).double() @ double.t()
        ).detach()
        token = reference_token_losses(
            hidden.flatten(0, 1).double() @ double.t() + logits, case.labels, case.weights.double()
        )
        token.sum().backward()
        torch.testing.assert_close(
            table.grad.double(), double.grad, rtol=2e-2, atol=2e-2 * float(double.grad.abs().max())
        )


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_recompute(reentrant: bool) -> None:
    case = make(8, 48, torch.float32)
    hidden = torch.randn(8, 16).requires_grad_()
    table = torch.randn(48, 16).requires_grad_()

    def block(h: torch.Tensor) -> torch.Tensor:
        return loss_of(case, h @ table.t())

    plain = torch.autograd.grad(block(hidden), (hidden, table))
    loss = checkpoint(block, hidden, use_reentrant=reentrant)
    loss.backward()
    torch.testing.assert_close(hidden.grad, plain[0])
    torch.testing.assert_close(table.grad, plain[1])


def test_gradient_accumulation_equals_one_batch() -> None:
    case = make(24, 64, torch.float32)
    hidden, table = torch.randn(24, 8), torch.randn(64, 8).requires_grad_()
    whole = linear_cross_entropy(hidden, table, case.labels, case.weights, case.subset, SUBSETS)
    whole.loss.backward()
    assert table.grad is not None
    want, table.grad = table.grad, None
    for i in range(0, 24, 6):
        c = slice(i, i + 6)
        part = linear_cross_entropy(hidden[c], table, case.labels[c], case.weights[c], case.subset[c], SUBSETS)
        part.loss.backward()
    torch.testing.assert_close(table.grad, want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))


def test_inside_torch_compile() -> None:
    case = make(8, 48, torch.float32)
    hidden, table = torch.randn(8, 16), torch.randn(48, 16).requires_grad_()

    def step(h: torch.Tensor) -> torch.Tensor:
        return loss_of(case, (h * 2) @ table.t()) * 3

    (want,) = torch.autograd.grad(step(hidden), table)
    (got,) = torch.autograd.grad(torch.compile(step, backend="aot_eager")(hidden), table)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("kernel", ["torch"])
def test_checks_name_the_row(kernel: str) -> None:
    case = make(6, 40, torch.float32)
    case.labels[:] = 3
    bad = {"labels": (4, 40), "subset": (2, 6), "weights": (5, float("nan"))}
    for name, (row, value) in bad.items():
        broken = make(6, 40, torch.float32)
        broken.labels[:] = 3
        getattr(broken, name)[row] = value
        with pytest.raises(ValueError, match=f"first in row {row}"):
            loss_of(broken, broken.logits, checks=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(4, 8, dtype=torch.float64)}, "logits must be"),
        ({"logits": torch.zeros(8, 4).t()}, "row of logits must be contiguous"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels must have shape"),
        ({"labels": torch.zeros(4)}, "labels must be int64"),
        ({"weights": torch.ones(4, dtype=torch.float64)}, "weights must be fp32"),
        ({"reduction": "mean"}, "reduction must be one of"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"z_loss": -1.0}, "z_loss"),
        ({"kernel": "cuda"}, "kernel must be one of"),
        ({"expected_upstream": 0.0}, "expected_upstream must be finite"),
        ({"expected_upstream": 1.0, "reduction": "none"}, "every token has its own"),
        ({"vocab_start": -1}, "vocab_start"),
    ],
)
def test_wrong_input_is_named(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "logits": torch.zeros(4, 8),
        "labels": torch.zeros(4, dtype=torch.int64),
        "weights": torch.ones(4),
        "subset_ids": torch.zeros(4, dtype=torch.int64),
        "num_subsets": SUBSETS,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        cross_entropy(**arguments)  # type: ignore[arg-type]


def test_linear_names_wrong_input() -> None:
    y, w = torch.zeros(4, dtype=torch.int64), torch.ones(4)
    with pytest.raises(ValueError, match="hidden must be"):
        linear_cross_entropy(torch.zeros(4, 8), torch.zeros(9, 7), y, w, y, SUBSETS)
    with pytest.raises(ValueError, match="share a device"):
        linear_cross_entropy(torch.zeros(4, 8), torch.zeros(9, 8, dtype=torch.bfloat16), y, w, y, SUBSETS)


def test_triton_without_a_gpu_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="needs a CUDA device"):
        pick_backend("triton", torch.device("cpu"))


def test_failed_compiler_falls_back_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from sdrrl_kernels import cross_entropy_cpu

    def broken(*_: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(cross_entropy_cpu, "COMPILE_ELEMENTS", 1)
    monkeypatch.setattr(torch, "compile", lambda f, dynamic: broken)
    cross_entropy_cpu._compiled.cache_clear()
    case = make(9, 30, torch.float32)
    loss = float(loss_of(case, case.logits))
    cross_entropy_cpu._compiled.cache_clear()
    assert loss == pytest.approx(float(exact(case, torch.tensor(1.0))[0].sum()), rel=1e-6)
    assert "no C++ compiler" in caplog.text
