"""What files hold, for fingerprints: SHA-256 of their bytes.

The sum of a large file is remembered under ``.cache/contents``, by the file's place, size and times, so that a model of
many gigabytes is read once and not at every start. Any write to a file changes one of its times.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key, read_json, readable, sha256_file, write_json

CACHE = Path(".cache/contents")
"""Relative to the working directory, like the cache of Debian packages."""
LARGE = 1 << 24
"""Bytes from which on a sum is worth a file of its own; smaller ones are remembered in this process alone."""
SETTLED_S = 2.0
"""A file written less long ago may change once more within the same tick of its clock; its sum is not remembered."""

_known: dict[tuple[Any, ...], str] = {}


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes; SdrrlError names a file that is not there or cannot be read."""
    with readable(path):
        stat = path.stat()
        mark = (str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if mark not in _known:
            remembered = _remembered(mark)
            found = remembered or sha256_file(path)
            if time.time() - max(stat.st_mtime, stat.st_ctime) < SETTLED_S:
                return found
            if not remembered and stat.st_size >= LARGE:
                _remember(mark, found)
            _known[mark] = found
        return _known[mark]


def _place(mark: tuple[Any, ...]) -> Path:
    return CACHE / f"{content_key(mark[0])}.json"


def _remembered(mark: tuple[Any, ...]) -> str | None:
    place = _place(mark)
    if mark[2] < LARGE or not place.is_file():
        return None
    try:
        found = read_json(place)
    except SdrrlError:
        return None  # it says what can be found out again
    return str(found["sha256"]) if isinstance(found, dict) and found.get("file") == list(mark) else None


def _remember(mark: tuple[Any, ...], sha256: str) -> None:
    # A working directory that takes no writes costs time at the next start, and nothing else.
    with contextlib.suppress(OSError, SdrrlError):
        write_json(_place(mark), {"file": list(mark), "sha256": sha256})


def files_below(path: Path) -> Iterator[Path]:
    """The file itself, or all files below a folder in the order of their names."""
    if path.is_dir():
        yield from sorted(p for p in path.rglob("*") if p.is_file())
    else:
        yield path


def contents(paths: Iterable[Path]) -> str:
    """16 hex digits for names and bytes of files, and of all files in folders, in the order given. Where they lie does
    not count, so a moved corpus is the same corpus."""
    named = [
        [str(file.relative_to(path)) if file != path else file.name, sha256_of(file)]
        for path in paths
        for file in files_below(path)
    ]
    return content_key(named)


def matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Files directly in a folder whose names match one of the patterns, each once, by name."""
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def seal(folder: Path) -> None:
    """Note beside a folder that was made here what its files hold, for `is_sealed`."""
    write_json(_seal(folder), {"contents": contents([folder])})


def is_sealed(folder: Path) -> bool:
    """Whether a folder that was made here is there and still holds what was written: an edited or damaged conversion is
    to be made anew, for its fingerprint is that of its source."""
    if not folder.is_dir() or not _seal(folder).is_file():
        return False
    noted = read_json(_seal(folder))
    return isinstance(noted, dict) and noted.get("contents") == contents([folder])


def _seal(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.sealed.json")
