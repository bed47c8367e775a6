"""One flipped bit anywhere in a packed set or a finished checkpoint is found and named; nothing opens silently."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.data.packing.packed import FORMAT, OWN_HASH, UNHASHED, PackedDataset
from sdrrl_nemo.train.callbacks.checkpoint import MANIFEST, damage, hashes, newest_sound
from tests.fuzz.harness import DONE, deadline, share
from tests.fuzz.parsers import packed_files

FLIP = st.integers(0, 2**40)


def flipped(path: Path, number: int) -> None:
    """The file with one bit turned around."""
    data = bytearray(path.read_bytes())
    bit = number % (len(data) * 8)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    for name, content in packed_files().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of a distributed checkpoint, published with the trainer's own functions."""
    folder = tmp_path_factory.mktemp("checkpoints") / "step-000002"
    (folder / "weights").mkdir(parents=True)
    (folder / "context").mkdir()
    for rank in range(2):
        (folder / "weights" / f"__{rank}_0.distcp").write_bytes(bytes(range(256)) * (1 + rank))
    torch.save({"step": 2}, folder / "weights" / "common.pt")
    write_json(folder / "weights" / "metadata.json", {"sharded_backend": "torch_dist"})
    (folder / "context" / "model.yaml").write_text("layers: 2\n", encoding="utf-8")
    write_json(folder / MANIFEST, hashes(folder))
    return folder


@share(0.08)
@given(st.sampled_from(sorted(packed_files())), FLIP)
def test_a_flip_in_a_packed_set_is_named(packed: Path, name: str, number: int) -> None:
    path = packed / name
    before = path.read_bytes()
    flipped(path, number)
    try:
        with deadline(), pytest.raises(SdrrlError, match=r"train\.") as caught:
            PackedDataset(packed)
    finally:
        path.write_bytes(before)
    # a flip in the manifest can give a listed file another name; the manifest's own hash comes first and names it
    assert name in str(caught.value)
    DONE["packed set, flipped bit, named"] += 1


@share(0.07)
@given(st.integers(0, 2**20), FLIP)
@example(0, 0)
@example(1, 856)  # in sha256.json __0_0.distcp becomes a second __1_0.distcp
def test_a_flip_in_a_checkpoint_is_named(checkpoint: Path, file: int, number: int) -> None:
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file())
    path = files[file % len(files)]
    before = path.read_bytes()
    flipped(path, number)
    try:
        with deadline():
            said = damage(checkpoint)
    finally:
        path.write_bytes(before)
    assert said is not None, f"bit {number} of {path} was not found"
    assert str(checkpoint) in said and (path.name == MANIFEST or path.name in said)
    assert damage(checkpoint) is None
    DONE["checkpoint, flipped bit, named"] += 1


def test_the_manifest_before_still_opens_and_the_new_one_cannot_pass_for_it(packed: Path, tmp_path: Path) -> None:
    for path in packed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest = read_json(tmp_path / "train.manifest.json")
    assert manifest["format"] == FORMAT
    del manifest[OWN_HASH]
    write_json(tmp_path / "train.manifest.json", manifest)
    with pytest.raises(SdrrlError, match=r"train\.manifest\.json: its content is not what its manifest_sha256 says"):
        PackedDataset(tmp_path)
    write_json(tmp_path / "train.manifest.json", {**manifest, "format": UNHASHED})
    assert len(PackedDataset(tmp_path)) == 4
    distance = sum((a ^ b).bit_count() for a, b in zip(FORMAT.encode(), UNHASHED.encode(), strict=True))
    assert distance > 1  # no single flip turns one into the other


@pytest.mark.parametrize("content", [b"{}", b"[]", b"null", b"3", b'{"a": 1}', b"\xff", b"[" * 100_000])
def test_a_checkpoint_whose_hashes_are_none_is_damaged(content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "step-000001"
    folder.mkdir()
    (folder / "weights").write_bytes(b"x")
    (folder / MANIFEST).write_bytes(content)
    assert str(folder) in (damage(folder) or "")
    with pytest.raises(SdrrlError, match="every checkpoint is damaged"):
        newest_sound(tmp_path)
    assert os.listdir(tmp_path) == ["damaged-step-000001"]
