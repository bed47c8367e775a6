"""Records (field -> value) of a file or data set, one after another, each with the place it stands at."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import BROKEN_JSON, content_key, readable, sha256_file

Record = dict[str, Any]
BATCH = 1024
"""Parquet rows in memory at a time."""
PARQUET_ERRORS = (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, RuntimeError)
"""What pyarrow raises for damaged files: its own exceptions are among these; text that is no UTF-8 is a ValueError."""
UNPACKING_ERRORS = (OSError, EOFError, zlib.error)
"""What gzip and pyarrow's Zstandard raise for a damaged or cut file."""
PACKED = (".gz", ".zst")
LONGEST_CELL = 1 << 30
"""Characters of one CSV cell; Python's own bound of 131,072 would end the file at a long answer."""


@dataclass(frozen=True)
class Broken:
    """A record that cannot be read while the file goes on behind it; ``reason`` is the same for all broken alike."""

    reason: str
    hint: str = ""


Found = Iterator[tuple[str, Record | Broken]]


def first_words(e: BaseException) -> str:
    """The first line of what a library says, or the kind of error where it says nothing."""
    return next(iter(str(e).splitlines()), "") or type(e).__name__


def records(path: str | Path, split: str) -> Found:
    """(place, record) of ``path``: ``.json`` (an array), ``.jsonl``, ``.csv`` (with a header; any of the three also
    packed: ``.jsonl.gz``, ``.jsonl.zst``), ``.parquet``, a directory that ``datasets.save_to_disk`` wrote, or
    ``hub:NAME`` for a data set of a model hub.

    ``split`` names the part of a data set that has parts. A line that cannot be read is a :class:`Broken`, and the file
    goes on; SdrrlError where the file cannot, with its name and how far it came.
    """
    if str(path).startswith("hub:"):
        return _from_hub(str(path).removeprefix("hub:"), split)
    path = Path(path)
    if path.is_dir():
        return _from_disk(path, split)
    if not path.is_file():
        raise SdrrlError(f"{path}: no such file; set instructions.path to an instruction set")
    packed = path.suffix.lower() if path.suffix.lower() in PACKED else ""
    suffix = (Path(path.stem) if packed else path).suffix.lower()
    readers = {".json": _json, ".jsonl": _jsonl, ".csv": _csv}
    if suffix == ".parquet" and not packed:
        return _parquet(path)
    if suffix not in readers:
        known = f"{', '.join(readers)} (each also with {' or '.join(PACKED)} behind it), .parquet"
        raise SdrrlError(f"{path}: '{suffix}{packed}' is not one of {known}, nor is this a directory")
    return readers[suffix](path)


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


def _opened(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked where its name says that it is packed."""
    with readable(path):
        if path.suffix.lower() == ".gz":
            return cast("IO[bytes]", gzip.open(path))
        if path.suffix.lower() == ".zst":
            import pyarrow

            return cast(
                "IO[bytes]", io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))
            )
        return open(path, "rb")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of a file that may be packed."""
    n = 0
    try:
        with _opened(path) as file:
            for raw in file:
                n += 1
                yield n, raw
    except UNPACKING_ERRORS as e:
        raise SdrrlError(f"{path}: cannot be read after line {n} ({first_words(e)})") from None


def _whole(path: Path) -> bytes:
    try:
        with _opened(path) as file:
            return file.read()
    except UNPACKING_ERRORS as e:
        raise SdrrlError(f"{path}: cannot be read ({first_words(e)})") from None


def _object(value: Any) -> Record | Broken:
    return value if isinstance(value, dict) else Broken(f"expected an object, found {type(value).__name__}")


def _jsonl(path: Path) -> Found:
    for n, raw in _lines(path):
        if raw.strip():
            yield f"{path}, line {n}", _parsed(raw, "utf-8-sig" if n == 1 else "utf-8")


def _parsed(raw: bytes, encoding: str) -> Record | Broken:
    try:
        return _object(json.loads(raw.decode(encoding)))
    except UnicodeDecodeError as e:
        return Broken("not UTF-8", f" ({e.reason} at byte {e.start} of the line)")
    except BROKEN_JSON as e:
        return Broken("not valid JSON", f" ({e}); mend or remove the line")


def _json(path: Path) -> Found:
    try:
        whole = json.loads(_whole(path).decode("utf-8-sig"))
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
        yield f"{path}, entry {n}", _object(row)


def _csv(path: Path) -> Found:
    """Rows of a CSV file under its header (RFC 4180: commas, quotes doubled inside quotes)."""
    csv.field_size_limit(LONGEST_CELL)
    first = 1
    # Bytes that are no UTF-8 come through as halves of surrogate pairs: one row is lost by them, not the file.
    texts = (raw.decode("utf-8-sig" if n == 1 else "utf-8", "surrogateescape") for n, raw in _lines(path))
    rows = csv.reader(texts, strict=True)
    names: list[str] | None = None
    while True:
        where, first = f"{path}, line {rows.line_num + 1}", rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as e:
            if names is None:
                raise SdrrlError(f"{path}, line {first}: no CSV header ({e})") from None
            yield where, Broken("not valid CSV", f" ({e}); mend or remove the row")
            continue
        if not row:
            continue
        if names is None:
            names = _header(path, row)
        else:
            yield where, _cells(names, row)


def _header(path: Path, row: list[str]) -> list[str]:
    names = [name.strip() for name in row]
    if len(set(names)) < len(names) or not all(names) or any(map(_undecoded, names)):
        raise SdrrlError(f"{path}, line 1: a CSV file begins with the names of its columns, each once; found {names}")
    return names


def _cells(names: list[str], row: list[str]) -> Record | Broken:
    if len(row) != len(names):
        return Broken("another number of columns than the header", f" ({len(row)}, header {len(names)})")
    if any(map(_undecoded, row)):
        return Broken("not UTF-8")
    return dict(zip(names, row, strict=True))


def _undecoded(cell: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in cell)


def _parquet(path: Path) -> Found:
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


def _from_disk(path: Path, split: str) -> Found:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as e:  # a damaged state.json gives a KeyError, a damaged dataset_info.json a TypeError
        raise SdrrlError(f"{path}: no data set that datasets.save_to_disk wrote ({first_words(e)})") from None
    return _rows(found, str(path), split)


def _from_hub(name: str, split: str) -> Found:
    import datasets

    try:
        found = datasets.load_dataset(name)
    except Exception as e:  # whatever the hub's client raises without a network, a login, or the data set
        raise SdrrlError(f"hub:{name}: cannot be loaded ({type(e).__name__}: {first_words(e)})") from None
    return _rows(found, f"hub:{name}", split)


def _rows(found: Any, where: str, split: str) -> Found:
    if hasattr(found, "column_names") and isinstance(found.column_names, dict):
        if split not in found:
            raise SdrrlError(f"{where}: no split '{split}'; set instructions.split to one of {', '.join(found)}")
        found = found[split]
    for n, row in enumerate(found, 1):
        yield f"{where}, row {n}", row
