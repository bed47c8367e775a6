"""Files of Megatron-LM's own preprocessing are read here, ours by mcore, and broken ones by nobody."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
from transformers import AutoTokenizer

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.packing.indexed import open_indexed
from sdrrl_nemo.data.packing.packed import PackedDataset, PackedWriter, TokenizedSample
from tests.launch import ROOT

THEIRS = ROOT / "tests/data/megatron_preprocess"


def test_what_megatrons_tool_wrote_is_its_text(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    texts = [json.loads(line)["text"] for line in (THEIRS / "in.jsonl").read_text(encoding="utf-8").splitlines()]
    found = open_indexed(THEIRS / "out_text_document")
    assert len(found) == len(texts) == 5
    assert found.document_indices.tolist() == list(range(6))
    for tokens, text in zip(found[:], texts, strict=True):
        assert tokens.tolist() == [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_what_mcores_builder_wrote(tmp_path: Path, dtype: type) -> None:
    builder = IndexedDatasetBuilder(str(tmp_path / "x.bin"), dtype=dtype)
    builder.add_document(np.asarray([1, 2, 3, 4]), [1, 3])
    builder.add_document(np.asarray([5]), [1])
    builder.finalize(str(tmp_path / "x.idx"))
    found = open_indexed(tmp_path / "x")
    assert [s.tolist() for s in found[:]] == [[1], [2, 3, 4], [5]]
    assert found.document_indices.tolist() == [0, 2, 3]


@pytest.mark.parametrize("vocabulary", [300, 128256])
def test_mcore_reads_ours(tmp_path: Path, vocabulary: int) -> None:
    writer = PackedWriter(tmp_path, "train", vocab_size=vocabulary, seq_length=16)
    samples = [
        TokenizedSample(
            f"{i + 1:016x}", "LL", np.arange(i, i + 5, dtype=np.int32), np.asarray([0, 0, 1, 1, 1], np.uint8)
        )
        for i in range(7)
    ]
    for begin in range(0, 7, 3):
        writer.add_pack(samples[begin : begin + 3])
    writer.finish({"tokenizer_sha256": "x"})
    theirs = IndexedDataset(str(tmp_path / "train"))
    assert [s.tolist() for s in theirs[:]] == [s.tokens.tolist() for s in samples]
    assert theirs.document_indices.tolist() == [0, 3, 6, 7]
    assert len(PackedDataset(tmp_path, "train")) == 3


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("out_text_document.bin", lambda b: b[:-2], r"\.bin: 254 bytes, its index says 256"),
        ("out_text_document.bin", lambda b: b + b"xx", r"\.bin: 258 bytes, its index says 256"),
        ("out_text_document.idx", lambda b: b[:-3], r"\.idx: the file is truncated"),
        ("out_text_document.idx", lambda b: b[:20], r"\.idx: the file is truncated"),
        ("out_text_document.idx", lambda b: b"{}" + b[2:], r"\.idx: no Megatron index"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, change, message: str) -> None:  # type: ignore[no-untyped-def]
    for path in THEIRS.glob("out*"):
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))
    with pytest.raises(SdrrlError, match=message):
        open_indexed(tmp_path / "out_text_document")
    (tmp_path / name).unlink()
    with pytest.raises(SdrrlError, match="file is missing"):
        open_indexed(tmp_path / "out_text_document")
