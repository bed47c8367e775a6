"""Order, weights and micro-batches: properties that make the Eq. 6 identity hold for any layout."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_kernels.reference import IGNORE_INDEX
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.packing.packed import PackedDataset, PackedWriter, TokenizedSample
from sdrrl_nemo.data.rows import SUBSETS
from sdrrl_nemo.train.batches import PAD, MicroBatches, MicroBatchStream, Schedule, sample_weights

SEQ = 32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    folder = tmp_path_factory.mktemp("packed")
    rng = np.random.default_rng(0)
    writer = PackedWriter(folder, "train", vocab_size=1000, seq_length=SEQ)
    key = 1
    for p in range(23):
        pack, used = [], 0
        while True:
            q, a = int(rng.integers(1, 6)), int(rng.integers(1, 9))
            if used + q + a > SEQ:
                break
            subset = SUBSETS[p % 6 if used == 0 else int(rng.integers(0, 3))]
            mask = np.asarray([0] * q + [1] * a, np.uint8)
            pack.append(TokenizedSample(f"{key:016x}", subset, rng.integers(1, 1000, q + a).astype(np.int32), mask))
            used, key = used + q + a, key + 1
        writer.add_pack(pack)
    writer.finish({"tokenizer_sha256": "0" * 64})
    return PackedDataset(folder)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 200), gbs=st.integers(1, 40), seed=st.integers(0, 10**6), epoch=st.integers(0, 3))
def test_an_epoch_sees_every_row_once(rows: int, gbs: int, seed: int, epoch: int) -> None:
    schedule = Schedule(rows, gbs, seed)
    s = schedule.steps_per_epoch
    seen = np.concatenate([schedule.batch(epoch * s + i) for i in range(s)])
    assert len(seen) == s * gbs
    assert sorted(seen[seen != PAD]) == list(range(rows))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    one = [tuple(Schedule(50, 50, 1).batch(i)) for i in range(3)]
    assert len(set(one)) == 3
    assert one == [tuple(Schedule(50, 50, 1).batch(i)) for i in range(3)]
    assert one[0] != tuple(Schedule(50, 50, 2).batch(0))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("mbs", "dp"), [(1, 1), (2, 1), (1, 4), (4, 2)])
def test_a_step_holds_the_same_tokens_in_any_layout(dataset: PackedDataset, packed: bool, mbs: int, dp: int) -> None:
    def tokens_of_step(mbs: int, dp: int, step: int) -> list[tuple[int, int, float, int]]:
        schedule = Schedule(MicroBatches.row_count(dataset, packed), 8, 11)
        batches = MicroBatches(dataset, packed=packed, micro_batch_size=mbs, reduction="mean", schedule=schedule)
        out = []
        for rank in range(dp):
            stream = iter(MicroBatchStream(batches, step, rank, dp))
            for _ in range(8 // mbs // dp):
                b = next(stream)
                keep = b["labels"] != IGNORE_INDEX
                fields = (b[k][keep].tolist() for k in ("tokens", "labels", "weights", "subset_ids"))
                out += list(zip(*fields, strict=True))
        return sorted(out)

    for step in (0, 3):
        assert tokens_of_step(mbs, dp, step) == tokens_of_step(1, 1, step)


@pytest.mark.parametrize("packed", [True, False])
def test_weights_of_an_epoch_sum_to_steps_per_subset(dataset: PackedDataset, packed: bool) -> None:
    """Sum over an epoch of a subset's token weights is S: each subset has mean weight 1 in Eq. 6."""
    schedule = Schedule(MicroBatches.row_count(dataset, packed), 4, 0)
    batches = MicroBatches(dataset, packed=packed, micro_batch_size=2, reduction="mean", schedule=schedule)
    total = torch.zeros(6, dtype=torch.float64)
    stream = iter(MicroBatchStream(batches, 0, 0, 1))
    for _ in range(schedule.steps_per_epoch * 2):
        b = next(stream)
        total.index_add_(0, b["subset_ids"].reshape(-1), b["weights"].double().reshape(-1))
        assert bool((b["weights"][b["labels"] == IGNORE_INDEX] == 0).all())
    torch.testing.assert_close(
        total, torch.full((6,), float(schedule.steps_per_epoch), dtype=torch.float64), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("mbs", [1, 2])
def test_live_rows_are_those_with_loss_in_megatrons_order(dataset: PackedDataset, packed: bool, mbs: int) -> None:
    """Sequence first: row number s * B + b of the hidden states is token s of row b."""
    rows = MicroBatches.row_count(dataset, packed)
    schedule = Schedule(rows, 4, 0)
    batches = MicroBatches(dataset, packed=packed, micro_batch_size=mbs, reduction="mean", schedule=schedule)
    stream = iter(MicroBatchStream(batches, 0, 0, 1))
    last = schedule.steps_per_epoch - 1  # of fewer rows than the others, filled up with padding
    for step in range(last + 1):
        found = [next(stream) for _ in range(4 // mbs)]
        for b in found:
            width = b["labels"].shape[0]
            chosen = [(int(i) // width, int(i) % width) for i in b["live"]]
            assert chosen == sorted(chosen)
            by_hand = {(s, r) for r, s in (b["weights"] != 0).nonzero().tolist()}
            assert set(chosen) == by_hand and len(chosen) == len(by_hand)
        share = sum(len(b["live"]) for b in found) / sum(b["labels"].numel() for b in found)
        assert batches.live_share(step) == pytest.approx(share)


def test_packed_rows_are_well_formed(dataset: PackedDataset) -> None:
    schedule = Schedule(len(dataset), 4, 0)
    batches = MicroBatches(dataset, packed=True, micro_batch_size=2, reduction="mean", schedule=schedule)
    b = batches.build(np.asarray([3, PAD]))
    cu = b["cu_seqlens"].tolist()
    assert cu[0] == 0
    assert cu[-1] == 2 * SEQ
    assert cu == sorted(set(cu))
    for start, end in itertools.pairwise(cu):
        assert b["position_ids"][0, start:end].tolist() == list(range(end - start))
        assert b["labels"][0, end - 1] == IGNORE_INDEX, "a sample's last token must not predict the next sample"
    keep = b["labels"][0] != IGNORE_INDEX
    following = torch.roll(b["tokens"][0], -1)
    assert torch.equal(b["labels"][0][keep], following[keep])
    assert int(keep.sum()) == int(dataset[3].answer_tokens.sum())
    empty = batches.build(np.asarray([PAD, PAD]))
    assert empty["cu_seqlens"].tolist() == [0, 2 * SEQ]
    assert float(empty["weights"].sum()) == 0


def test_stream_resumes_where_it_stopped(dataset: PackedDataset) -> None:
    schedule = Schedule(len(dataset), 4, 5)
    batches = MicroBatches(dataset, packed=True, micro_batch_size=1, reduction="mean", schedule=schedule)
    full, late = iter(MicroBatchStream(batches, 0, 1, 2)), iter(MicroBatchStream(batches, 9, 1, 2))
    for _ in range(9 * 2):
        next(full)
    for _ in range(6):
        a, b = next(full), next(late)
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_reductions(dataset: PackedDataset) -> None:
    size, answer = dataset.subset_sizes()[dataset.subset], dataset.answer_tokens
    np.testing.assert_allclose(sample_weights(dataset, "mean", 7), 7 / (size * answer))
    np.testing.assert_allclose(sample_weights(dataset, "sum", 7), 7 / size)
    token = sample_weights(dataset, "token", 7)
    for i in range(6):
        np.testing.assert_allclose((token * answer)[dataset.subset == i].sum(), 7)
    with pytest.raises(SdrrlError, match="sample_reduction"):
        sample_weights(dataset, "median", 7)


def epoch_loss(dataset: PackedDataset, table: torch.Tensor, reduction: str, normalise: str) -> torch.Tensor:
    """Mean of an epoch's step losses of a model whose logits are ``table[token]``; float64 [vocabulary, vocabulary]."""
    schedule = Schedule(len(dataset), 4, 3)
    batches = MicroBatches(
        dataset, packed=True, micro_batch_size=2, reduction=reduction, schedule=schedule, normalise=normalise
    )
    stream, steps = iter(MicroBatchStream(batches, 0, 0, 1)), schedule.steps_per_epoch
    total = torch.zeros((), dtype=torch.float64)
    for b in (next(stream) for _ in range(2 * steps)):
        each = torch.nn.functional.cross_entropy(table[b["tokens"][0]], b["labels"][0], reduction="none")
        total = total + (each * b["weights"][0].double()).sum()
    return total / steps


def eq6(dataset: PackedDataset, table: torch.Tensor) -> torch.Tensor:
    """Eq. 6 as the paper writes it, sample by sample and without weights; float64."""
    by_subset: dict[int, list[torch.Tensor]] = {}
    for i, subset in enumerate(dataset.subset):
        tokens = torch.from_numpy(np.asarray(dataset.indexed[i], np.int64))
        answer = int(dataset.answer_tokens[i])
        logits = table[tokens[-answer - 1 : -1]]
        by_subset.setdefault(int(subset), []).append(torch.nn.functional.cross_entropy(logits, tokens[-answer:]))
    return torch.stack([torch.stack(losses).mean() for losses in by_subset.values()]).sum()


@pytest.fixture
def table() -> torch.Tensor:
    g = torch.Generator().manual_seed(4)
    return torch.randn(1000, 1000, generator=g, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize(("normalise", "divisor"), [("sum", 1), ("mean", 6)])
def test_mean_is_eq6_divided_by_the_number_of_subsets_in_loss_and_gradients(
    dataset: PackedDataset, table: torch.Tensor, normalise: str, divisor: int
) -> None:
    want = eq6(dataset, table) / divisor
    found = epoch_loss(dataset, table, "mean", normalise)
    torch.testing.assert_close(found, want, rtol=1e-6, atol=0)  # a micro-batch holds its weights in fp32
    gradients = [torch.autograd.grad(loss, table)[0] for loss in (found, want)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum", "token"])
def test_a_mean_over_subsets_scales_every_weight_alike(dataset: PackedDataset, reduction: str) -> None:
    total, mean = (sample_weights(dataset, reduction, 7, normalise) for normalise in ("sum", "mean"))
    np.testing.assert_allclose(mean * 6, total, rtol=1e-15)


def test_a_subset_without_samples_does_not_count(tmp_path: Path) -> None:
    writer = PackedWriter(tmp_path, "train", vocab_size=100, seq_length=8)
    mask = np.asarray([0, 1, 1], np.uint8)
    for key, subset in ((1, "LL"), (2, "TT"), (3, "TT")):
        writer.add_pack([TokenizedSample(f"{key:016x}", subset, np.asarray([1, 2, 3], np.int32), mask)])
    writer.finish({"tokenizer_sha256": "0" * 64})
    weights = sample_weights(PackedDataset(tmp_path), "mean", 3, "mean")
    assert weights.tolist() == pytest.approx([3 / 2 / 2, 3 / 4 / 2, 3 / 4 / 2])


@pytest.mark.parametrize(
    ("reduction", "normalise", "weight"),
    [("mean", "sum", 6), ("token", "sum", 6), ("mean", "mean", 1), ("token", "mean", 1), ("step", "sum", 1)],
)
def test_weight_of_a_step(dataset: PackedDataset, reduction: str, normalise: str, weight: float) -> None:
    schedule = Schedule(len(dataset), 4, 3)
    made = MicroBatches(
        dataset, packed=True, micro_batch_size=1, reduction=reduction, schedule=schedule, normalise=normalise
    )
    assert made.step_weight() == weight


def test_weight_of_a_step_of_answers_that_count_by_their_length(dataset: PackedDataset) -> None:
    schedule = Schedule(len(dataset), 4, 3)
    made = MicroBatches(dataset, packed=True, micro_batch_size=1, reduction="sum", schedule=schedule)
    lengths = [float(dataset.answer_tokens[dataset.subset == d].mean()) for d in range(6)]
    assert made.step_weight() == pytest.approx(sum(lengths), rel=1e-5)


@pytest.mark.parametrize("packed", [True, False])
def test_step_reduction_is_the_mean_over_the_answer_tokens_of_a_step(dataset: PackedDataset, packed: bool) -> None:
    schedule = Schedule(MicroBatches.row_count(dataset, packed), 8, 11)
    batches = MicroBatches(dataset, packed=packed, micro_batch_size=2, reduction="step", schedule=schedule)
    for step in range(schedule.steps_per_epoch):  # the last one is short
        streams = [iter(MicroBatchStream(batches, step, rank, 2)) for rank in range(2)]
        weights = torch.cat([next(s)["weights"].flatten() for s in streams for _ in range(2)])
        answer_tokens = int(dataset.answer_tokens[batches.samples_of_step(step)].sum())
        assert int((weights > 0).sum()) == answer_tokens
        assert weights[weights > 0].tolist() == pytest.approx([1 / answer_tokens] * answer_tokens, rel=1e-6)
