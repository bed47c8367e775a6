"""Both backends against float64, no worse than torch's fp32 cross-entropy times 1.5.

Grid. V: 128 (less than a tile), 1000 (no power of two), 32000 (one tile short of 32768), 32003 (odd: nothing is
aligned), 49152 (whole tiles), 64000, 128256 (a tail after whole tiles). Up to 32003 the one-pass kernel keeps a row in
registers, beyond it streams. Every V is crossed with every dtype and, in turn, with the row patterns; plans, upstream
gradients and padding, which depend on V through the tail alone, with a few. The full product runs under -m slow.
The interpreter needs 15 to 50 ms a row at these sizes, hence the few rows.
"""

from __future__ import annotations

import pytest
import torch

from tests.unit.kernels.loss_cases import UPSTREAM, assert_no_worse_than_torch, exact, make, run

VOCABS = [128, 1000, 32000, 32003, 49152, 64000, 128256]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
KINDS = ["normal", "extreme", "ignored", "strided"]


def rows(vocab: int) -> int:
    return 24 if vocab <= 1000 else 4


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_triton_as_good_as_torch(vocab: int, dtype: torch.dtype) -> None:
    turn = VOCABS.index(vocab) + DTYPES.index(dtype)
    for kind in ("normal", KINDS[1 + turn % 3]):
        assert_no_worse_than_torch(make(rows(vocab), vocab, dtype, turn, kind), "triton", per_token=kind == "normal")


@pytest.mark.slow
@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_token", [False, True])
def test_torch_whole_grid(vocab: int, dtype: torch.dtype, kind: str, per_token: bool) -> None:
    assert_no_worse_than_torch(make(4 * rows(vocab), vocab, dtype, 4, kind), "torch", per_token)
    if not per_token:
        case = make(4 * rows(vocab), vocab, dtype, 4, kind)
        assert_no_worse_than_torch(case, "torch", per_token, expected_upstream=UPSTREAM)


@pytest.mark.slow
@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_triton_whole_grid(vocab: int, dtype: torch.dtype, kind: str, per_token: bool, seed: int) -> None:
    assert_no_worse_than_torch(make(rows(vocab), vocab, dtype, seed, kind), "triton", per_token)
    if not per_token:
        assert_no_worse_than_torch(
            make(rows(vocab), vocab, dtype, seed, kind), "triton", per_token, expected_upstream=UPSTREAM
        )
    padded = (vocab + 127) // 128 * 128 + 128
    assert_no_worse_than_torch(make(rows(vocab), vocab, dtype, seed, "normal", padded), "triton", per_token)


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_as_good_as_torch(vocab: int, dtype: torch.dtype) -> None:
    for i, kind in enumerate(KINDS):
        assert_no_worse_than_torch(make(rows(vocab), vocab, dtype, 3, kind), "torch", per_token=i % 2 == 0)


def test_compiled_torch_as_good_as_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdrrl_kernels import cross_entropy_cpu

    monkeypatch.setattr(cross_entropy_cpu, "COMPILE_ELEMENTS", 1)
    for kind in KINDS:
        assert_no_worse_than_torch(
            make(40, 1003, torch.bfloat16, 5, kind, 1024 if kind == "normal" else None), "torch", True
        )
        assert_no_worse_than_torch(make(40, 1003, torch.bfloat16, 5, kind), "torch", False, expected_upstream=UPSTREAM)


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("kernel", ["triton", "torch"])
@pytest.mark.parametrize("vocab", [1000, 32003, 49152])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_pass_with_known_upstream(kernel: str, vocab: int, dtype: torch.dtype) -> None:
    for kind in ("normal", "extreme"):
        case = make(rows(vocab), vocab, dtype, 7, kind, None if kind == "extreme" else vocab + 125)
        assert_no_worse_than_torch(case, kernel, per_token=False, expected_upstream=UPSTREAM)


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("kernel", ["triton", "torch"])
def test_one_pass_with_another_upstream_costs_one_rounding(kernel: str) -> None:
    case = make(16, 1000, torch.bfloat16, 8)
    upstream = torch.tensor(UPSTREAM)
    _, gradient, _ = run(case, kernel, upstream, expected_upstream=1.0)
    _, want = exact(case, upstream)
    # two roundings to 8 bits; a power of two as upstream gradient would cost none
    fp32 = 5e-7 * case.weights.double()[:, None]  # of a probability near 1, before the label's -1
    assert bool(((gradient.double() - want).abs() <= want.abs() * (2 * 2.0**-8 + 2.0**-16) + fp32).all())
    _, halved, _ = run(case, kernel, torch.tensor(0.5), expected_upstream=1.0)
    _, known, _ = run(case, kernel, torch.tensor(0.5), expected_upstream=0.5)
    assert torch.equal(halved, known)


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("kernel", ["triton", "torch"])
@pytest.mark.parametrize("vocab", [128, 32003, 49152])
@pytest.mark.parametrize("expected", [None, UPSTREAM])
def test_label_smoothing_and_z_loss(kernel: str, vocab: int, expected: float | None) -> None:
    case = make(rows(vocab), vocab, torch.float32, 9, "normal", vocab + 5)
    upstream = torch.tensor(UPSTREAM)
    _, gradient, out = run(
        case, kernel, upstream, label_smoothing=0.1, z_loss=1e-3, expected_upstream=expected, return_logsumexp=True
    )
    token, want = exact(case, upstream, 0.1, 1e-3)
    assert float(out.loss.detach()) == pytest.approx(float(token.sum()), rel=2e-6)
    row = case.weights.double()[:, None] + 1e-300
    assert float(((gradient[:, :vocab].double() - want).abs() / row).max()) < 5e-7
    live = (case.labels != -100) & (case.weights != 0)
    lse = torch.logsumexp(case.logits[:, :vocab].double(), 1)
    torch.testing.assert_close(out.logsumexp[live].double(), lse[live], rtol=3e-7, atol=0)
    assert bool((out.logsumexp[~live] == 0).all())


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("kernel", ["triton", "torch"])
def test_padding_gets_no_probability(kernel: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert_no_worse_than_torch(make(12, 1003, dtype, 4, "normal", 1152), kernel, per_token=True)


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("kernel", ["triton", "torch"])
@pytest.mark.parametrize("options", [{}, {"expected_upstream": 1.0}, {"reduction": "none"}, {"in_place": False}])
def test_same_bits_every_time(kernel: str, options: dict[str, object]) -> None:
    case = make(30, 1003, torch.bfloat16, 11)
    first, second = (run(case, kernel, torch.tensor(1.0), **options) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(first[2].subset_sums, second[2].subset_sums)


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("kernel", ["triton", "torch"])
def test_empty_input(kernel: str) -> None:
    case = make(0, 64, torch.float32)
    loss, gradient, out = run(case, kernel, torch.tensor(1.0))
    assert float(loss) == 0
    assert gradient.shape == (0, 64)
    assert out.subset_counts.tolist() == [0] * 6
