"""Rows and lines of a data set's file in any form that publishers give it: plain or gzipped, JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import BROKEN_JSON, readable
from sdrrl_nemo.common.optional import require

OTHER_ENDINGS = (".jsonl", ".json", ".parquet")
"""Forms of one table of rows; each of the first two also with ``.gz``."""


def candidates(path: Path) -> list[Path]:
    """Where the file may lie: under its own name, then gzipped, then in another form of rows, as the hub shards it."""
    found = [path, path.with_name(path.name + ".gz")]
    if path.suffix in OTHER_ENDINGS:
        stem = path.with_suffix("")
        for ending in OTHER_ENDINGS:
            found += [stem.with_name(stem.name + ending), stem.with_name(stem.name + ending + ".gz")]
        found.append(stem.with_name(stem.name + "-00000-of-00001.parquet"))
    return found


def find_file(path: Path, name: str, source: str) -> Path:
    """``path`` in whichever of its forms it is there; SdrrlError says what to put where. ``source`` publishes it."""
    for candidate in candidates(path):
        if candidate.is_file():
            return candidate
    raise SdrrlError(
        f"{path} (or .gz): no such file; put {name} there as {source} publishes it, set data_dir, or fetch it "
        "with download=true where the hub can be reached"
    )


def read_lines(path: Path) -> list[str]:
    """Lines of a text; the last line feed ends a line and begins none. Only line feeds part lines."""
    try:
        text = _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise SdrrlError(f"{path}: not UTF-8 ({e}); fetch the file again") from None
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.rstrip("\r") for line in lines]


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line or entry number from 1, row) of JSON Lines, a JSON list, CSV with a header, or Parquet."""
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind == ".parquet":
        yield from enumerate(_parquet(path), 1)
        return
    lines = read_lines(path)
    if kind == ".csv":
        yield from enumerate(_csv(path, lines), 1)
        return
    if kind == ".jsonl":
        for n, line in enumerate(lines, 1):
            if line.strip():
                yield n, _object(path, f"line {n}", _parsed(path, f", line {n}", line))
        return
    loaded = _parsed(path, "", "\n".join(lines))
    if not isinstance(loaded, list):
        raise SdrrlError(f"{path}: expected a list of objects")
    for n, row in enumerate(loaded, 1):
        yield n, _object(path, f"entry {n}", row)


def _bytes(path: Path) -> bytes:
    with readable(path):
        raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as e:
        raise SdrrlError(f"{path}: cannot be read ({e}); fetch the file again") from None


def _parsed(path: Path, where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except BROKEN_JSON as e:
        said = " ".join(str(e).split())[:200]
        raise SdrrlError(f"{path}{where}: cannot be read (not valid JSON: {said}); fetch the file again") from None


def _object(path: Path, where: str, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise SdrrlError(f"{path}, {where}: expected a JSON object, found {type(row).__name__}")
    return row


def _csv(path: Path, lines: list[str]) -> list[dict[str, Any]]:
    try:
        return list(csv.DictReader(io.StringIO("\n".join(lines), newline=""), strict=True))
    except csv.Error as e:
        raise SdrrlError(f"{path}: no table of comma-separated values ({e}); fetch the file again") from None


def _parquet(path: Path) -> list[dict[str, Any]]:
    parquet = require("pyarrow.parquet", "pyarrow")
    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as e:  # pyarrow's own errors are among these
        said = " ".join(str(e).split())[:200]
        raise SdrrlError(f"{path}: cannot be read as Parquet ({said}); fetch the file again") from None
    return rows
