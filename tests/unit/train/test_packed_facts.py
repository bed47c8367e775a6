"""What a packed set says of itself: counts, packs, subsets; and names and formats that are refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import sha256_file
from sdrrl_nemo.data.packing.packed import (
    FORMAT,
    MAX_SUBSETS,
    OWN_HASH,
    PackedDataset,
    PackedWriter,
    TokenizedSample,
    own_hash,
)


def sample(key: int, subset: str, question: int, answer: int) -> TokenizedSample:
    tokens = np.arange(10 * key, 10 * key + question + answer, dtype=np.int32)
    return TokenizedSample(f"{key:016x}", subset, tokens, np.asarray([0] * question + [1] * answer, np.uint8))


PACKS = [[sample(1, "b", 1, 2), sample(2, "a", 3, 1)], [sample(3, "b", 2, 6)], [sample(4, "b", 1, 1)]]
PACKS[2] = [dataclasses.replace(PACKS[2][0], key="f" * 16)]  # the largest key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = PackedWriter(tmp_path, "set", vocab_size=100, seq_length=8, subset_names=("a", "b", "empty"))
    for pack in PACKS:
        writer.add_pack(pack)
    writer.finish({"tokenizer_sha256": "f" * 64, "extra": [1]})
    return tmp_path


def test_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "set.manifest.json").read_text())
    assert manifest[OWN_HASH] == own_hash(manifest)
    del manifest[OWN_HASH]
    files = manifest.pop("files")
    assert manifest == {
        "tokenizer_sha256": "f" * 64,
        "extra": [1],
        "format": FORMAT,
        "vocab_size": 100,
        "seq_length": 8,
        "packs": 3,
        "samples": 4,
        "tokens": 17,
        "packing_efficiency": 17 / 24,
        "subset_names": ["a", "b", "empty"],
        "subsets": {
            "a": {"samples": 1, "tokens": 4, "answer_tokens": 1},
            "b": {"samples": 3, "tokens": 13, "answer_tokens": 9},
            "empty": {"samples": 0, "tokens": 0, "answer_tokens": 0},
        },
    }
    for name, facts in files.items():
        assert facts == {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
    assert sorted(p.name for p in folder.iterdir()) == sorted([*files, "set.manifest.json"])


def test_packs_come_back_as_they_were(folder: Path) -> None:
    data = PackedDataset(folder, "set")
    assert len(data) == 3
    assert data.subset_names == ("a", "b", "empty") and data.subset_sizes().tolist() == [1, 3, 0]
    assert [list(data.samples_of(i)) for i in range(3)] == [[0, 1], [2], [3]]
    for i, pack in enumerate(PACKS):
        found = data[i]
        assert found.tokens.tolist() == [t for s in pack for t in s.tokens.tolist()]
        assert found.loss_mask.tolist() == [m for s in pack for m in s.loss_mask.tolist()]
        assert found.lengths.tolist() == [len(s.tokens) for s in pack]
        assert found.subset.tolist() == [("a", "b").index(s.subset) for s in pack]
        assert found.answer_tokens.tolist() == [int(s.loss_mask.sum()) for s in pack]
        assert [f"{int(k):016x}" for k in found.sample_key] == [s.key for s in pack]
        assert (found.tokens.dtype, found.sample_key.dtype) == (np.int64, np.uint64)


def test_sidecars_are_plain_arrays(folder: Path) -> None:
    """Readable by numpy alone, with the header's length that of the finished file."""
    mask = np.load(folder / "set.loss_mask.npy")
    assert (mask.dtype, mask.shape) == (np.uint8, (17,))
    assert np.load(folder / "set.subset.npy").tolist() == [1, 0, 1, 1]
    assert np.load(folder / "set.answer_tokens.npy").dtype == np.int32


@pytest.mark.parametrize(
    ("names", "fine"),
    [
        ([], False),
        (["a", "a"], False),
        ([f"s{i}" for i in range(MAX_SUBSETS)], True),
        ([f"s{i}" for i in range(MAX_SUBSETS + 1)], False),
        (["a"], True),
    ],
)
def test_subset_names(tmp_path: Path, names: list[str], fine: bool) -> None:
    if fine:
        writer = PackedWriter(tmp_path, "x", 100, 8, names)
        writer.add_pack([TokenizedSample("1", names[-1], np.asarray([1, 2], np.int32), np.asarray([0, 1], np.uint8))])
        writer.finish({"tokenizer_sha256": ""})
        assert PackedDataset(tmp_path, "x").subset.tolist() == [len(names) - 1]
    else:
        with pytest.raises(SdrrlError, match=f"needs 1 to 256 different subset names, got {len(names)}"):
            PackedWriter(tmp_path, "x", 100, 8, names)


@pytest.mark.parametrize(("tokens", "fits"), [([1, 2, 3, 4], True), ([1, 2, 3, 99], True), ([1, 2, 3, 100], False)])
def test_ids_and_length_at_their_bounds(tmp_path: Path, tokens: list[int], fits: bool) -> None:
    writer = PackedWriter(tmp_path, "x", vocab_size=100, seq_length=4, subset_names=("a",))
    pack = [TokenizedSample("1", "a", np.asarray(tokens, np.int32), np.asarray([0, 1, 1, 1], np.uint8))]
    if fits:
        writer.add_pack(pack)
        assert writer.finish({"tokenizer_sha256": ""})["packing_efficiency"] == 1.0
    else:
        with pytest.raises(SdrrlError, match="vocabulary is 100"):
            writer.add_pack(pack)


def test_a_set_of_nothing_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    writer = PackedWriter(folder, "x", 100, 8)
    with pytest.raises(SdrrlError, match="no sample is left to pack"):
        writer.finish({"tokenizer_sha256": ""})
    assert not list(folder.iterdir())
    assert writer._builder.data_file.closed


def test_writing_again_takes_the_old_manifest_away_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends in the middle of publishing leaves no manifest that vouches for files of two runs."""
    from sdrrl_nemo.data.packing import packed

    writer = PackedWriter(folder, "set", 100, 8, ("b",))
    writer.add_pack(PACKS[1])

    def stop(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(packed, "publish", stop)
    with pytest.raises(OSError, match="disk full"):
        writer.finish({"tokenizer_sha256": ""})
    writer.discard()
    with pytest.raises(SdrrlError, match="no packed set here"):
        PackedDataset(folder, "set")


def test_another_format_is_refused(folder: Path) -> None:
    path = folder / "set.manifest.json"
    path.write_text(path.read_text().replace(FORMAT, "sdrrl-packed/0"))
    with pytest.raises(SdrrlError, match=f"format 'sdrrl-packed/0' is not '{FORMAT}' .*; preprocess again"):
        PackedDataset(folder, "set")
