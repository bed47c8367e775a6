"""Vocabulary expansion: a Hugging Face folder with more tokens, each starting as the mean of its old pieces.

What the paper leaves to future work ("Limitations": languages the tokenizer serves badly). The rows of a new token, in
the input embeddings and in an output layer of its own, are the mean of the rows of the pieces it was before; every
other tensor, and every old row, keeps its bits.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, read_jsonl, sha256_file, write_json
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.compat.transformers5 import for_both_versions, load_tokenizer
from sdrrl_nemo.model.bpe import GrowingBpe
from sdrrl_nemo.model.folders import whole_folder
from sdrrl_nemo.model.hf_bridge import HFTensors
from sdrrl_nemo.model.provider import read_hf_config

ROWS = ("model.embed_tokens.weight", "lm_head.weight")
"""Tensors with one row a token; the second is absent where it is tied to the first."""
CARRIED = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")
"""Copied as they are. vocab.json, merges.txt and tokenizer.model would not know the new tokens."""
FACTS = "expansion.json"
HELD_OUT = 10
"""Every tenth text is measured on and not learnt from."""


@dataclass(frozen=True)
class Fertility:
    """Pieces of some texts before and after; words are what spaces separate."""

    texts: int
    words: int
    pieces_before: int
    pieces_after: int


def read_texts(path: Path, keys: Sequence[str]) -> list[str]:
    """Texts of a JSON Lines file (fields ``keys``, joined by a newline) or the lines of a plain text file."""
    if path.suffix == ".jsonl":
        texts = []
        for n, row in read_jsonl(path):
            missing = [k for k in keys if not isinstance(row.get(k), str)]
            if missing:
                raise SdrrlError(f"{path}, line {n}: no text under the key '{missing[0]}'; name the keys with --keys")
            texts.append("\n".join(row[k] for k in keys))
    else:
        texts = _lines(path)
    if not texts:
        raise SdrrlError(f"{path}: holds no text")
    return texts


def read_words(path: Path) -> list[str]:
    """Words of a text file, one a line; SdrrlError when there are none."""
    words = _lines(path)
    if not words:
        raise SdrrlError(f"{path}: holds no word, expected one a line")
    return words


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise SdrrlError(f"{path}: no such file")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise SdrrlError(f"{path}: not UTF-8 ({e.reason} at byte {e.start})") from None
    return [line.strip() for line in lines if line.strip()]


def split(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """(texts to learn from, texts to measure on)."""
    learn = [t for i, t in enumerate(texts) if (i + 1) % HELD_OUT]
    return learn, [t for i, t in enumerate(texts) if not (i + 1) % HELD_OUT] or learn


def expand(source: Path, output: Path, bpe: GrowingBpe, texts: Sequence[str]) -> Fertility:
    """Write ``source`` with the tokens of ``bpe`` as ``output``; ``texts`` are measured and must come back unchanged.

    SdrrlError when ``output`` exists, a weight file lacks the embeddings, or the written tokenizer is not the old one
    with the new tokens.
    """
    if output.exists():
        raise SdrrlError(f"{output}: exists already; remove it or choose another --output")
    hf = read_hf_config(source)
    if bpe.first_id > hf.vocab_size:
        raise SdrrlError(f"{source}: the tokenizer has {bpe.first_id} ids, the model only {hf.vocab_size} rows")
    ids: dict[str, int] = bpe.tokenizer.get_vocab()
    pieces = [[ids[p] for p in bpe.old_pieces(token)] for token in bpe.new]
    size = max(hf.vocab_size, bpe.first_id + len(bpe.new))
    with whole_folder(output) as folder:
        for name in CARRIED:
            if (source / name).is_file():
                shutil.copy(source / name, folder / name)
        write_json(folder / "config.json", {**read_json(source / "config.json"), "vocab_size": size})
        (folder / "tokenizer.json").write_text(
            json.dumps(bpe.document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
        for_both_versions(folder)
        _write_weights(source, folder, bpe.first_id, pieces, size)
        measured = _check_tokenizer(source, folder, bpe, texts)
        new = [
            {"id": bpe.first_id + i, "token": token, "pieces": p}
            for i, (token, p) in enumerate(zip(bpe.new, pieces, strict=True))
        ]
        facts = {"source": str(source), "source_tokenizer_sha256": sha256_file(bpe.path), "new_tokens": new}
        write_json(folder / FACTS, {**facts, "measured": vars(measured), **provenance()})
    return measured


def grown(rows: Tensor, first_id: int, pieces: Sequence[Sequence[int]], size: int) -> Tensor:
    """Rows [V, h] -> [size, h]: row ``first_id + i`` is the mean of the rows ``pieces[i]``, in float64, rounded once.

    A model can have more rows than its tokenizer has ids; new tokens then take the spare ones first.
    """
    means = torch.stack([rows[list(p)].double().mean(dim=0) for p in pieces]).to(rows.dtype)
    out = torch.cat([rows, rows.new_zeros(size - rows.shape[0], rows.shape[1])])
    out[first_id : first_id + len(pieces)] = means
    return out


def _write_weights(source: Path, folder: Path, first_id: int, pieces: Sequence[Sequence[int]], size: int) -> None:
    """Weight files one by one; only those with rows of tokens are rewritten."""
    hf = HFTensors(source)
    if ROWS[0] not in hf:
        raise SdrrlError(f"{source}: tensor '{ROWS[0]}' is missing from the safetensors files")
    changed = {hf.file_of[name] for name in ROWS if name in hf}
    added = 0
    for file in sorted(set(hf.file_of.values())):
        if file not in changed:
            shutil.copy(source / file, folder / file)
            continue
        with safe_open(source / file, framework="pt") as f:
            metadata = f.metadata()
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - not a mapping
        for name in ROWS:
            if name in tensors:
                before = tensors[name].nbytes
                tensors[name] = grown(tensors[name], first_id, pieces, size)
                added += tensors[name].nbytes - before
        save_file(tensors, folder / file, metadata)
    index = source / "model.safetensors.index.json"
    if index.is_file():
        document = read_json(index)
        if "total_size" in document.get("metadata", {}):
            document["metadata"]["total_size"] += added
        document.get("metadata", {}).pop("total_parameters", None)
        write_json(folder / index.name, document)


def _check_tokenizer(source: Path, folder: Path, bpe: GrowingBpe, texts: Sequence[str]) -> Fertility:
    """Load both tokenizers as a user does: old ids kept, new ids as planned, texts the same when decoded again."""
    old, new = (load_tokenizer(p) for p in (source, folder))
    expected = {**old.get_vocab(), **{token: bpe.first_id + i for i, token in enumerate(bpe.new)}}
    if new.get_vocab() != expected:
        raise SdrrlError(f"{source}: the expanded tokenizer loads with other ids than planned; it cannot be expanded")
    before, after = _ids(old, texts), _ids(new, texts)
    for text, a, b in zip(texts, before, after, strict=True):
        if old.decode(a) != new.decode(b) or len(b) > len(a):
            raise SdrrlError(f"{source}: the expanded tokenizer changes the text '{text[:60]}'; it cannot be expanded")
    return Fertility(len(texts), sum(len(t.split()) for t in texts), sum(map(len, before)), sum(map(len, after)))


def _ids(tokenizer: Any, texts: Iterable[str]) -> list[list[int]]:
    out: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return out
