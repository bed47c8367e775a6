"""Tensor parallelism without processes: each rank's slice through the steps of a backend, put together by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sdrrl_kernels import fused_linear_cross_entropy as fused
from sdrrl_kernels import options, sequence_parallel
from sdrrl_kernels.api import pick_backend
from sdrrl_kernels.live_rows import select_rows
from sdrrl_kernels.options import Backend, LossOptions, exchange
from tests.unit.kernels.loss_cases import Case, exact, make

pytestmark = pytest.mark.usefixtures("interpreter")
KERNELS = pytest.mark.parametrize("kernel", ["torch", "triton"])


def backend_of(kernel: str) -> Backend:
    return pick_backend(kernel, torch.device("cpu"))


def slices(case: Case, widths: list[int], **constants: float) -> list[tuple[Tensor, LossOptions]]:
    """(logits, options) of each rank; columns at or beyond the vocabulary are padding that must not be read."""
    out, start = [], 0
    for width in widths:
        valid = max(0, min(width, case.vocab - start))
        part = torch.full((case.logits.shape[0], width), float("nan"), dtype=case.logits.dtype)
        part[:, :valid] = case.logits[:, start : start + valid]
        out.append((part, LossOptions(-100, start, valid, case.vocab, **constants)))
        start += width
    return out


def by_ranks(
    case: Case, kernel: str, widths: list[int], upstream: Tensor, **constants: float
) -> tuple[Tensor, list[Tensor], Tensor]:
    """(token losses, gradient of each rank's slice, logsumexp)."""
    backend = backend_of(kernel)
    ranks = slices(case, widths, **constants)
    parts = torch.stack([backend.statistics(x, case.labels, case.weights, o) for x, o in ranks])
    assert parts.shape[1] == (4 if constants.get("label_smoothing") else 3)
    token, row_max, row_sum = backend.finish(parts, case.labels, case.weights, ranks[0][1])
    gradients = []
    for i, (x, o) in enumerate(ranks):
        out = x if i % 2 else torch.full_like(x, 7.0)  # in place, and into another buffer
        backend.gradient(x, out, case.labels, case.weights, upstream, row_max, row_sum, o)
        gradients.append(out)
    return token, gradients, row_max + row_sum.log()


@KERNELS
@pytest.mark.parametrize("widths", [[40, 40], [16, 64, 16]])  # the last of the three ranks: padding alone
@pytest.mark.parametrize("constants", [{}, {"label_smoothing": 0.2, "z_loss": 0.1}])
def test_slices_of_the_vocabulary_give_the_loss_of_the_whole(
    kernel: str, widths: list[int], constants: dict[str, float]
) -> None:
    case = make(9, 75, torch.float32, 5)
    case.weights.clamp_(max=10)
    case.logits[3] = 500 * case.logits[3]  # a maximum far from 0, in one slice alone
    case.labels[3], case.weights[3] = 70, 1.0
    case.labels[4], case.weights[4] = 2, -1.5  # less than nothing is not nothing
    upstream = torch.randn(9, generator=torch.Generator().manual_seed(0))
    token, gradients, _ = by_ranks(case, kernel, widths, upstream, **constants)
    want, want_gradient = exact(case, upstream, **constants)
    torch.testing.assert_close(token.double(), want, rtol=3e-6, atol=1e-6)
    whole = torch.cat(gradients, 1)
    torch.testing.assert_close(whole[:, : case.vocab].double(), want_gradient, rtol=3e-5, atol=3e-6)
    assert bool((whole[:, case.vocab :] == 0).all())


@KERNELS
def test_a_slice_without_a_finite_logit_adds_nothing(kernel: str) -> None:
    case = make(6, 20, torch.float32, 6)
    case.labels[:], case.weights[:] = 3, 1.0
    case.logits[:, 10:] = float("-inf")
    token, gradients, lse = by_ranks(case, kernel, [10, 10], torch.tensor(1.0))
    alone = case.logits[:, :10].double()
    torch.testing.assert_close(lse.double(), torch.logsumexp(alone, 1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(token.double(), torch.logsumexp(alone, 1) - alone[:, 3], rtol=1e-6, atol=1e-6)
    assert bool((gradients[1] == 0).all())


@KERNELS
def test_statistics_of_a_row(kernel: str) -> None:
    """Maximum, sum of exponentials, label's logit, sum of logits; skipped rows tell 0, 1, 0, 0."""
    logits = torch.tensor([[1.0, 2.0, 4.0, 9.0]] * 5)
    labels, weights = torch.tensor([12, 10, 14, -100, 12]), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    o = LossOptions(-100, 10, 3, 20, label_smoothing=0.1)  # column 3 is padding; 14 is another rank's label
    found = backend_of(kernel).statistics(logits, labels, weights, o)
    spread = sum(float(torch.tensor(x - 4.0).exp()) for x in (1.0, 2.0, 4.0))
    own = [[4.0, spread, label, 7.0] for label in (4.0, 1.0, 0.0)]
    want = torch.tensor([*own, *[[0.0, 1.0, 0.0, 0.0]] * 2])
    torch.testing.assert_close(found, want.t())


@KERNELS
def test_totals_count_tokens_and_leave_out_unknown_subsets(kernel: str) -> None:
    token = torch.tensor([1.0, 2.0, 0.0, 8.0, 16.0, 0.0])
    labels = torch.tensor([0, 5, -100, 7, 1, 2])
    subsets = torch.tensor([0, 2, 2, 3, -1, 2])
    found = backend_of(kernel).totals(token, labels, subsets, 3, -100)
    assert found.subset_sums.tolist() == [1.0, 0.0, 2.0]
    assert found.subset_counts.tolist() == [1, 0, 2]
    assert float(found.loss) == 27.0
    # the last program counts all tokens, so the buffer must have room for that number too
    assert found.subset_counts.untyped_storage().nbytes() >= 4 * 8


@KERNELS
def test_rescaling_is_by_the_ratio_and_touches_nothing_where_it_is_one(kernel: str) -> None:
    backend = backend_of(kernel)
    gradient = torch.tensor([[1.0, 2.0, -3.0]] * 2)
    backend.rescale(gradient, torch.tensor(0.5), 2.0)
    assert gradient.tolist() == [[0.25, 0.5, -0.75]] * 2
    version, before = gradient._version, gradient.clone()
    backend.rescale(gradient, torch.tensor(2.0), 2.0)
    assert torch.equal(gradient, before)
    if kernel == "torch":
        assert gradient._version == version


@KERNELS
@pytest.mark.parametrize("constants", [{}, {"label_smoothing": 0.1}, {"z_loss": 0.01}])
@pytest.mark.parametrize(("vocab", "padded"), [(75, 75), (75, 96), (5000, 5003)])
def test_one_pass_is_the_three_steps(kernel: str, vocab: int, padded: int, constants: dict[str, float]) -> None:
    case = make(7, vocab, torch.float32, 8, "normal", padded)
    case.weights.clamp_(max=10)
    case.labels[2], case.weights[2] = 2, -1.5
    backend = backend_of(kernel)
    o = LossOptions(-100, 0, vocab, vocab, **constants)
    x = case.logits.clone()
    token, row_max, row_sum = backend.one_pass(x, case.labels, case.weights, 0.5, o)
    want, want_gradient = exact(case, torch.tensor(0.5), **constants)
    torch.testing.assert_close(token.double(), want, rtol=3e-6, atol=1e-6)
    torch.testing.assert_close(x[:, :vocab].double(), want_gradient, rtol=3e-5, atol=3e-6)
    assert bool((x[:, vocab:] == 0).all())
    live = (case.labels != -100) & (case.weights != 0)
    lse = torch.logsumexp(case.logits[:, :vocab].double(), 1)
    torch.testing.assert_close((row_max + row_sum.log())[live].double(), lse[live], rtol=1e-6, atol=1e-6)
    assert bool((row_max[~live] == 0).all()) and bool((row_sum[~live] == 1).all())


@KERNELS
def test_a_rank_of_padding_alone_in_one_pass(kernel: str) -> None:
    x = torch.full((2, 8), float("nan"))
    o = LossOptions(-100, 0, 0, 5)
    backend_of(kernel).one_pass(x, torch.tensor([-100, 1]), torch.tensor([1.0, 0.0]), 1.0, o)
    assert bool((x == 0).all())


def test_chunks_of_rows_are_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eager CPU path works on a few rows at a time; rows do not know of each other."""
    from sdrrl_kernels import cross_entropy_cpu

    case = make(13, 50, torch.float32, 9)
    want = by_ranks(case, "torch", [50], torch.tensor(1.0))
    sizes: list[int] = []
    scan = cross_entropy_cpu._scan
    monkeypatch.setattr(cross_entropy_cpu, "_scan", lambda x: (sizes.append(len(x)), scan(x))[1])
    monkeypatch.setattr(cross_entropy_cpu, "CHUNK_ELEMENTS", 150)
    found = by_ranks(case, "torch", [50], torch.tensor(1.0))
    assert sizes == [3, 3, 3, 3, 1]
    assert torch.equal(found[0], want[0]) and torch.equal(found[1][0], want[1][0])
    monkeypatch.setattr(cross_entropy_cpu, "CHUNK_ELEMENTS", 10)  # less than a row: one at a time
    by_ranks(case, "torch", [50], torch.tensor(1.0))
    assert sizes[5:] == [1] * 13


def test_large_inputs_are_compiled_and_small_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdrrl_kernels import cross_entropy_cpu

    compiled: list[Any] = []
    monkeypatch.setattr(cross_entropy_cpu, "COMPILE_ELEMENTS", 100)
    monkeypatch.setattr(cross_entropy_cpu, "_compiled", lambda loop: compiled.append(loop) or loop)
    for shape, yes in (((2, 50), True), ((2, 49), False), ((1, 500), False), ((20, 50), True)):
        compiled.clear()
        m, _ = cross_entropy_cpu._by_rows(cross_entropy_cpu._scan, torch.randn(shape))
        assert bool(compiled) is yes and len(m) == shape[0]


def test_exchange_is_one_collective(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exchange(torch.ones(3, 4), None).shape == (1, 3, 4)
    other = torch.arange(12.0).reshape(3, 4)

    def gather(out: Tensor, mine: Tensor, group: Any) -> None:
        assert out.dim() == mine.dim() == 1
        out.copy_(torch.cat([mine, other.flatten()]))

    monkeypatch.setattr(options.dist, "get_world_size", lambda group: 2)
    monkeypatch.setattr(options.dist, "all_gather_into_tensor", gather)
    found = exchange(other.flip(0), object())  # type: ignore[arg-type]
    assert torch.equal(found, torch.stack([other.flip(0), other]))


class Work:
    """A collective under way."""

    waited = 0

    def wait(self) -> None:
        Work.waited += 1


@KERNELS
@pytest.mark.parametrize("rows", [3, 20])
def test_the_linear_form_on_one_of_two_ranks(kernel: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rank's statistics come by the exchange; what this rank adds to the hidden states is summed by NCCL."""
    case = make(9, 24, torch.float32, 3)
    case.weights.clamp_(max=10)
    g = torch.Generator().manual_seed(0)
    hidden, table = torch.randn(9, 6, generator=g), torch.randn(24, 6, generator=g)
    live = (case.labels != -100) & (case.weights != 0)
    backend, seen = backend_of(kernel), []

    def with_the_other(part: Tensor, group: Any) -> Tensor:
        begin = sum(seen)
        seen.append(part.shape[1])
        c = slice(begin, begin + part.shape[1])
        x, y, w = hidden[live][c], case.labels[live][c], case.weights[live][c]
        o = LossOptions(-100, 10, 14, 24)
        return torch.stack([part, backend.statistics((x @ table[10:].t()).contiguous(), y, w, o)])

    Work.waited = 0
    monkeypatch.setattr(fused, "exchange", with_the_other)
    monkeypatch.setattr(fused.dist, "all_reduce", lambda part, group, async_op: Work())
    h, t = hidden.clone().requires_grad_(), table[:10].clone().requires_grad_()
    o = LossOptions(-100, 0, 10, 24, group=object())  # type: ignore[arg-type]
    loss, *_ = fused.LinearCrossEntropy.apply(
        h, t, None, case.labels, case.weights, case.subset, 6, o, backend, "sum", False, 1.0, rows
    )
    loss.backward()
    case.logits = (hidden.double() @ table.double().t()).float()
    token, gradient = exact(case, torch.tensor(1.0))
    torch.testing.assert_close(loss.double(), token.sum(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(t.grad.double(), gradient[:, :10].t() @ hidden.double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(h.grad.double(), gradient[:, :10] @ table[:10].double(), rtol=1e-4, atol=1e-4)
    assert Work.waited == len(seen) == -(-int(live.sum()) // rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_first_product_replaces_what_the_buffer_held(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weight's gradient is made in memory that was never set."""
    monkeypatch.setattr(fused, "BLOCK", 2)
    gradient, hidden = torch.randn(4, 5).to(dtype), torch.randn(4, 3).to(dtype)
    total = torch.full((5, 3), float("nan"))
    fused._accumulate(total, gradient, hidden, first=True)
    product = (gradient.float().t() @ hidden.float()).float()
    torch.testing.assert_close(total, product, rtol=1e-2, atol=1e-2)
    fused._accumulate(total, gradient, hidden, first=False)
    torch.testing.assert_close(total, 2 * product, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_rows_split_over_ranks_are_gathered_and_each_rank_takes_its_gradient(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three ranks of two rows each; what the others send is put in by hand."""
    parts = [torch.full((2, 4), float(r)) for r in range(3)]
    monkeypatch.setattr(sequence_parallel.dist, "get_world_size", lambda group: 3)
    monkeypatch.setattr(sequence_parallel.dist, "get_rank", lambda group: rank)
    monkeypatch.setattr(
        sequence_parallel.dist, "all_gather_into_tensor", lambda out, mine, group: out.copy_(torch.cat(parts))
    )
    mine = parts[rank].clone().requires_grad_()
    whole = sequence_parallel.gather_sequence(mine, object())  # type: ignore[arg-type]
    assert torch.equal(whole, torch.cat(parts))
    upstream = torch.arange(24.0).reshape(6, 4)
    (found,) = torch.autograd.grad(whole, mine, upstream)
    assert torch.equal(found, upstream[2 * rank : 2 * rank + 2])


def test_rows_without_loss_get_no_gradient() -> None:
    """In the order asked for, none left out; autograd's own index_select says the same."""
    rows = torch.randn(7, 3, dtype=torch.float64).requires_grad_()
    live = torch.tensor([5, 0, 3])
    out = select_rows(rows, live)
    assert torch.equal(out, rows[live])
    upstream = torch.randn(3, 3, dtype=torch.float64)
    (found,) = torch.autograd.grad(out, rows, upstream)
    (want,) = torch.autograd.grad(rows.index_select(0, live), rows, upstream)
    assert torch.equal(found, want) and not found[[1, 2, 4, 6]].any()
    assert torch.autograd.gradcheck(lambda x: select_rows(x, live), (rows,))
