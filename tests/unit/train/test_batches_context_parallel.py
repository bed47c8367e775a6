"""Which tokens a context-parallel rank holds, and rows that grow for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sdrrl_nemo.data.packing.packed import PackedDataset, PackedWriter, TokenizedSample
from sdrrl_nemo.train.batches import MicroBatches, MicroBatchStream, Schedule, on_this_rank

LENGTHS = [[5, 3, 6], [10, 1], [15]]
"""Lengths of the samples of three packs; the answer is all but the first token of a sample, of a lone one none."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    folder = tmp_path_factory.mktemp("packed")
    writer = PackedWriter(folder, "train", vocab_size=100, seq_length=16)
    tokens = iter(range(1, 100))
    for i, pack in enumerate(LENGTHS):
        samples = []
        for n in pack:
            mask = np.asarray([0] + [1] * max(1, n - 1), np.uint8)
            ids = np.asarray([next(tokens) for _ in mask], np.int32)
            samples.append(TokenizedSample(f"{i:08x}{n:08x}", "LL", ids, mask))
        writer.add_pack(samples)
    writer.finish({"tokenizer_sha256": "0" * 64})
    return PackedDataset(folder)


def batches_of(dataset: PackedDataset, packed: bool, cp: int, **options: int) -> MicroBatches:
    schedule = Schedule(MicroBatches.row_count(dataset, packed), 2, 0)
    return MicroBatches(
        dataset, packed=packed, micro_batch_size=2, reduction="mean", schedule=schedule,
        context_parallel_size=cp, **options,
    )  # fmt: skip


def test_two_ranks_hold_mirrored_chunks_of_every_sample() -> None:
    tokens = torch.arange(16)[None]
    batch = {"tokens": tokens, "weights": tokens.float(), "cu_seqlens": torch.tensor([0, 4, 16])}
    first, second = (on_this_rank(batch, 2, rank) for rank in range(2))
    assert first["tokens"].tolist() == [[0, 3, 4, 5, 6, 13, 14, 15]]
    assert second["tokens"].tolist() == [[1, 2, 7, 8, 9, 10, 11, 12]]
    assert first["weights"].tolist() == first["tokens"].float().tolist()
    assert all(part["cu_seqlens"].tolist() == [0, 4, 16] for part in (first, second))
    assert on_this_rank(batch, 1, 0) is batch


def test_rows_of_one_sample_are_cut_as_a_whole() -> None:
    batch = {"tokens": torch.arange(16).reshape(2, 8)}
    assert on_this_rank(batch, 2, 0)["tokens"].tolist() == [[0, 1, 6, 7], [8, 9, 14, 15]]
    assert on_this_rank(batch, 2, 1)["tokens"].tolist() == [[2, 3, 4, 5], [10, 11, 12, 13]]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("cp", [1, 2, 4])
def test_all_ranks_together_hold_every_weighted_token_once(dataset: PackedDataset, packed: bool, cp: int) -> None:
    batches = batches_of(dataset, packed, cp)
    whole = batches_of(dataset, packed, 1)
    for rows in ([0, 1], [2, 0]):
        parts = [on_this_rank(batches.build(np.asarray(rows)), cp, rank) for rank in range(cp)]
        held = sorted(
            (t, y, w)
            for part in parts
            for t, y, w in zip(*(part[k].flatten().tolist() for k in ("tokens", "labels", "weights")), strict=True)
            if w
        )
        plain = whole.build(np.asarray(rows))
        columns = (plain[k].flatten().tolist() for k in ("tokens", "labels", "weights"))
        assert held == sorted(x for x in zip(*columns, strict=True) if x[2])
        assert len({part["tokens"].shape for part in parts}) == 1


@pytest.mark.parametrize(
    ("packed", "cp", "options", "length"),
    [
        (True, 1, {}, 16),
        (True, 2, {}, 20),  # samples of 5, 3 and 6 tokens, each padded to a multiple of 4
        (True, 4, {}, 24),
        (False, 2, {}, 16),
        (True, 2, {"row_multiple": 3}, 24),
        (False, 1, {"row_multiple": 5}, 20),
        (False, 1, {"seq_length": 21}, 21),
        (True, 2, {"seq_length": 21}, 24),
    ],
)
def test_row_length(dataset: PackedDataset, packed: bool, cp: int, options: dict[str, int], length: int) -> None:
    batches = batches_of(dataset, packed, cp, **options)
    assert batches.seq_length == length
    assert batches.row_shape == ((1, 2 * length) if packed else (2, length))
    built = batches.build(np.asarray([0, 1]))
    assert built["tokens"].shape == batches.row_shape


def test_packed_rows_say_where_samples_and_padding_lie(dataset: PackedDataset) -> None:
    built = batches_of(dataset, True, 2).build(np.asarray([0, 1]))
    assert built["cu_seqlens"].tolist() == [0, 8, 12, 20, 32, 36, 40]
    assert built["cu_seqlens"].dtype == torch.int32 and built["max_seqlen"].dtype == torch.int32
    assert int(built["max_seqlen"]) == 12
    assert built["position_ids"][0].tolist() == [
        *range(5), 0, 0, 0, *range(3), 0, *range(6), 0, 0, *range(10), 0, 0, *range(2), 0, 0, *range(4)
    ]  # fmt: skip


def test_a_stream_gives_its_ranks_part_and_keys_name_the_samples(dataset: PackedDataset) -> None:
    batches = batches_of(dataset, True, 2)
    rows = batches.schedule.batch(0)
    (part, *_) = (next(iter(MicroBatchStream(batches, 0, 0, 1, cp_rank=1))),)
    want = on_this_rank(batches.build(rows), 2, 1)
    assert all(torch.equal(part[k], want[k]) for k in want)
    expected = [f"{i:08x}{n:08x}" for i in rows if i >= 0 for n in LENGTHS[i]]
    assert batches.keys(0, 0, 1, 0) == expected
    assert batches.useful_tokens(0) == sum(max(2, n) for i in rows if i >= 0 for n in LENGTHS[i])


def test_keys_of_a_rank_and_a_micro_batch(tmp_path: Path) -> None:
    writer = PackedWriter(tmp_path, "train", vocab_size=100, seq_length=4)
    for i in range(8):
        sample = TokenizedSample(f"{i:016x}", "LL", np.asarray([1, 2], np.int32), np.asarray([0, 1], np.uint8))
        writer.add_pack([sample])
    writer.finish({"tokenizer_sha256": "0" * 64})
    dataset = PackedDataset(tmp_path)
    schedule = Schedule(8, 8, 3)
    batches = MicroBatches(dataset, packed=True, micro_batch_size=2, reduction="mean", schedule=schedule)
    order = schedule.batch(0)  # micro-batches one after another, in each the ranks, in each a rank's rows
    for micro in range(2):
        for rank in range(2):
            begin = 4 * micro + 2 * rank
            assert batches.keys(0, rank, 2, micro) == [f"{i:016x}" for i in order[begin : begin + 2]]
