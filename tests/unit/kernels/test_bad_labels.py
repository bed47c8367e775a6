"""Labels that are of no column: found without waiting for the device, and never a plausible loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdrrl_kernels import check_labels
from sdrrl_kernels.api import cross_entropy, linear_cross_entropy
from sdrrl_kernels.options import LossOptions
from tests.unit.kernels.test_ranks_by_hand import KERNELS, backend_of

pytestmark = pytest.mark.usefixtures("interpreter")
VOCAB, PADDED = 11, 16
PLANS: list[dict[str, Any]] = [{}, {"expected_upstream": 1.0}, {"reduction": "none"}]


def loss_of(form: str, labels: list[int], weights: list[float], **options: Any) -> Any:
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(len(labels), 4, generator=g).requires_grad_()
    table = torch.randn(PADDED, 4, generator=g).requires_grad_()
    rest = (torch.tensor(labels), torch.tensor(weights), torch.zeros(len(labels), dtype=torch.int64), 1)
    if form == "linear":
        return linear_cross_entropy(hidden, table, *rest, vocab_size=VOCAB, rows_per_chunk=2, **options)
    return cross_entropy(hidden @ table.t(), *rest, vocab_size=VOCAB, **options)


@KERNELS
@pytest.mark.parametrize("form", ["logits", "linear"])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("bad", [VOCAB, PADDED, -1, 2**32 + 3, -(2**40)])  # 2**32 + 3 cut to 32 bits is a token
def test_a_label_of_no_column_is_nan_and_flagged(kernel: str, form: str, plan: dict[str, Any], bad: int) -> None:
    if form == "linear" and plan == {}:
        pytest.skip("the linear form has one plan for sums")
    out = loss_of(form, [3, bad, 0, -100], [1.0, 0.5, 2.0, 1.0], kernel=kernel, **plan)
    assert bool(out.bad_labels)
    wrong = torch.isnan(out.loss.detach())
    assert wrong.tolist() == ([False, True, False, False] if plan.get("reduction") else True)
    with pytest.raises(ValueError, match="a label is neither a token of the vocabulary nor ignore_index"):
        check_labels(out)


@KERNELS
@pytest.mark.parametrize("form", ["logits", "linear"])
def test_what_carries_no_loss_may_have_any_label(kernel: str, form: str) -> None:
    out = loss_of(form, [3, 99, VOCAB - 1, -100], [1.0, 0.0, 2.0, 1.0], kernel=kernel)
    assert not bool(out.bad_labels)
    assert bool(torch.isfinite(out.loss))
    check_labels(out)


@KERNELS
def test_a_label_of_another_rank_is_none_of_ours_and_not_bad(kernel: str) -> None:
    """Two ranks of 8 columns, 11 of the 16 vocabulary: 10 is the second rank's, 11 is padding there."""
    backend = backend_of(kernel)
    logits = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    labels, weights = torch.tensor([2, 10, 11]), torch.ones(3)
    ranks = [LossOptions(-100, 0, 8, 11), LossOptions(-100, 8, 3, 11)]
    parts = [
        backend.statistics(logits[:, 8 * i : 8 * i + 8].contiguous(), labels, weights, o) for i, o in enumerate(ranks)
    ]
    token, *_ = backend.finish(torch.stack(parts), labels, weights, ranks[1])
    want = torch.nn.functional.cross_entropy(logits[:2, :11], labels[:2], reduction="none")
    torch.testing.assert_close(token[:2], want)
    assert bool(torch.isnan(token[2]))


@KERNELS
@pytest.mark.parametrize("expected", [None, 1.0])
def test_a_slice_without_its_group_knows_its_own_labels(kernel: str, expected: float | None) -> None:
    logits = torch.randn(3, 8, generator=torch.Generator().manual_seed(2)).requires_grad_()
    rest = (torch.tensor([19, 12, -100]), torch.ones(3), torch.zeros(3, dtype=torch.int64), 1)
    out = cross_entropy(logits * 1, *rest, vocab_start=12, vocab_size=20, expected_upstream=expected, kernel=kernel)
    want = torch.nn.functional.cross_entropy(logits[:2], torch.tensor([7, 0]), reduction="sum")
    torch.testing.assert_close(out.loss, want)
    torch.testing.assert_close(torch.autograd.grad(out.loss, logits), torch.autograd.grad(want, logits))
    assert not bool(out.bad_labels)
