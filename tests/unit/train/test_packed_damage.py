"""A damaged or foreign packed set is refused by name, and nothing is published half written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.packing.packed import PackedDataset, PackedWriter, TokenizedSample


def _write(folder: Path) -> Path:
    writer = PackedWriter(folder, "train", vocab_size=100, seq_length=16)
    sample = TokenizedSample("0" * 15 + "1", "LL", np.arange(5, dtype=np.int32), np.asarray([0, 0, 1, 1, 1], np.uint8))
    writer.add_pack([sample, sample])
    writer.add_pack([sample])
    writer.finish({"tokenizer_sha256": "a" * 64})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _write(tmp_path / "set")


def test_reads_back(folder: Path) -> None:
    d = PackedDataset(folder, tokenizer_sha256="a" * 64)
    assert len(d) == 2
    assert d[0].lengths.tolist() == [5, 5]
    assert d[1].tokens.tolist() == [0, 1, 2, 3, 4]
    assert d.manifest["packing_efficiency"] == pytest.approx(15 / 32)
    assert d.subset_sizes().tolist() == [3, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("name", ["train.bin", "train.idx", "train.loss_mask.npy", "train.subset.npy"])
def test_truncated_by_one_byte(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SdrrlError, match=f"{name}.*bytes, the manifest says"):
        PackedDataset(folder)


def test_one_flipped_byte(folder: Path) -> None:
    data = bytearray((folder / "train.bin").read_bytes())
    data[3] ^= 1
    (folder / "train.bin").write_bytes(bytes(data))
    with pytest.raises(SdrrlError, match=r"train\.bin: SHA-256 differs"):
        PackedDataset(folder)


def test_missing_file_and_missing_set(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match="no packed set here"):
        PackedDataset(tmp_path / "nowhere")
    (folder / "train.idx").unlink()
    with pytest.raises(SdrrlError, match=r"train\.idx: file is missing"):
        PackedDataset(folder)


def test_other_tokenizer(folder: Path) -> None:
    with pytest.raises(SdrrlError, match="packed with tokenizer aaaaaaaaaaaa"):
        PackedDataset(folder, tokenizer_sha256="b" * 64)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    a, b = _write(tmp_path / "a"), _write(tmp_path / "b")
    assert sorted(p.name for p in a.iterdir()) == sorted(p.name for p in b.iterdir())
    assert not [p for p in a.iterdir() if p.name.endswith(".tmp")]
    for p in a.iterdir():
        assert p.read_bytes() == (b / p.name).read_bytes()


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        (range(5), [0, 1, 1, 1, 1], "has 5 tokens"),
        (range(4), [1, 1, 1, 1], "must start with a question token"),
        (range(2), [0, 0], "must start with a question token"),
        (range(120, 122), [0, 1], "vocabulary is 100"),
    ],
)
def test_bad_samples_are_refused(tmp_path: Path, tokens: range, mask: list[int], message: str) -> None:
    writer = PackedWriter(tmp_path, "train", vocab_size=100, seq_length=4)
    sample = TokenizedSample("1", "LL", np.asarray(tokens, np.int32), np.asarray(mask, np.uint8))
    with pytest.raises(SdrrlError, match=message):
        writer.add_pack([sample])
    assert not list(tmp_path.iterdir())
