"""Records (field -> value) of a file or data set, one after another, each with the place it stands at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import BROKEN_JSON, canonical_json, content_key, read_jsonl, readable, sha256_file

Record = dict[str, Any]
BATCH = 1024
"""Parquet rows in memory at a time."""
PARQUET_ERRORS = (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, RuntimeError)
"""What pyarrow raises for damaged files: its own exceptions are among these; text that is no UTF-8 is a ValueError."""


def first_words(e: BaseException) -> str:
    """The first line of what a library says, or the kind of error where it says nothing."""
    return next(iter(str(e).splitlines()), "") or type(e).__name__


def records(path: str | Path, split: str) -> Iterator[tuple[str, Record]]:
    """(place, record) of ``path``: ``.json`` (an array), ``.jsonl``, ``.parquet``, a directory that
    ``datasets.save_to_disk`` wrote, or ``hub:NAME`` for a data set of a model hub.

    ``split`` names the part of a data set that has parts. SdrrlError names the file, and the line or row.
    """
    if str(path).startswith("hub:"):
        return _from_hub(str(path).removeprefix("hub:"), split)
    path = Path(path)
    if path.is_dir():
        return _from_disk(path, split)
    if not path.is_file():
        raise SdrrlError(f"{path}: no such file; set instructions.path to an instruction set")
    readers = {".json": _json, ".jsonl": _jsonl, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise SdrrlError(f"{path}: '{path.suffix}' is not one of {', '.join(readers)}, nor is this a directory")
    return reader(path)


def content_of(path: str | Path) -> str:
    """Changes when the records may change: SHA-256 of the file, or of a directory's files. A data set of a hub goes by
    its name alone."""
    if str(path).startswith("hub:"):
        return str(path)
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return content_key(*((str(p.relative_to(path)), sha256_file(p)) for p in files))
    return sha256_file(path)


def _jsonl(path: Path) -> Iterator[tuple[str, Record]]:
    for n, row in read_jsonl(path):
        yield f"{path}, line {n}", row


def _json(path: Path) -> Iterator[tuple[str, Record]]:
    try:
        with readable(path):
            whole = json.loads(path.read_text(encoding="utf-8-sig"))
        canonical_json(whole).encode()
    except UnicodeDecodeError as e:
        raise SdrrlError(f"{path}: not UTF-8 ({e.reason} at byte {e.start})") from None
    except json.JSONDecodeError as e:
        if e.msg == "Extra data":
            raise SdrrlError(
                f"{path}, line {e.lineno}: JSON goes on after its end; are these JSON Lines (.jsonl)?"
            ) from None
        raise SdrrlError(f"{path}, line {e.lineno}: no JSON ({e.msg})") from None
    except BROKEN_JSON as e:
        raise SdrrlError(f"{path}: no JSON that can be taken over ({e})") from None
    if not isinstance(whole, list):
        raise SdrrlError(f"{path}: expected an array of objects, found {type(whole).__name__}")
    for n, row in enumerate(whole, 1):
        where = f"{path}, entry {n}"
        if not isinstance(row, dict):
            raise SdrrlError(f"{where}: expected an object, found {type(row).__name__}")
        yield where, row


def _parquet(path: Path) -> Iterator[tuple[str, Record]]:
    import pyarrow.parquet

    n = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                for row in batch.to_pylist():
                    n += 1
                    yield f"{path}, row {n}", row
    except PARQUET_ERRORS as e:
        raise SdrrlError(f"{path}: cannot be read as Parquet after row {n} ({first_words(e)})") from None


def _from_disk(path: Path, split: str) -> Iterator[tuple[str, Record]]:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as e:  # a damaged state.json gives a KeyError, a damaged dataset_info.json a TypeError
        raise SdrrlError(f"{path}: no data set that datasets.save_to_disk wrote ({first_words(e)})") from None
    return _rows(found, str(path), split)


def _from_hub(name: str, split: str) -> Iterator[tuple[str, Record]]:
    import datasets

    try:
        found = datasets.load_dataset(name)
    except Exception as e:  # whatever the hub's client raises without a network, a login, or the data set
        raise SdrrlError(f"hub:{name}: cannot be loaded ({type(e).__name__}: {first_words(e)})") from None
    return _rows(found, f"hub:{name}", split)


def _rows(found: Any, where: str, split: str) -> Iterator[tuple[str, Record]]:
    if hasattr(found, "column_names") and isinstance(found.column_names, dict):
        if split not in found:
            raise SdrrlError(f"{where}: no split '{split}'; set instructions.split to one of {', '.join(found)}")
        found = found[split]
    for n, row in enumerate(found, 1):
        yield f"{where}, row {n}", row
