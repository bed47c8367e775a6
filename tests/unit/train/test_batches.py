"""Order, weights and micro-batches: properties that make the Eq. 6 identity hold for any layout."""

from __future__ import annotations

import itertools

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
