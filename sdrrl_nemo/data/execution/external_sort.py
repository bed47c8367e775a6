"""Sorting more rows than memory holds: sorted runs on disk, merged."""

from __future__ import annotations

import heapq
import pickle
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.fileio import room_on_disk

Item = tuple[Any, Any]
"""(key, row)."""

FAN_IN = 64
"""Files merged at once; more runs are merged in several rounds."""
BLOCK = 256
"""Rows pickled together."""


def external_sort(
    rows: Iterable[Any], key: Callable[[Any], Any], directory: Path, memory_rows: int = 100_000
) -> Iterator[Any]:
    """The rows by ``key``, equal keys in their order of arrival; memory holds ``memory_rows`` rows at most.

    ``directory`` must exist and be empty; what is put there is gone when the last row is out. SdrrlError when its disk
    is full. A key is computed once.
    """
    source = iter(rows)
    runs: list[Path] = []
    while items := sorted(((key(row), row) for row in islice(source, memory_rows)), key=itemgetter(0)):
        if not runs and len(items) < memory_rows:
            yield from (row for _, row in items)
            return
        runs.append(_write(directory / f"run-{len(runs):06d}", items))
        del items
    merges = 0
    while len(runs) > FAN_IN:  # neighbours stay together, in order: the sort stays stable
        groups = [runs[i : i + FAN_IN] for i in range(0, len(runs), FAN_IN)]
        runs = []
        for group in groups:
            runs.append(_write(directory / f"merge-{merges:06d}", _merge(group)))
            merges += 1
            _remove(group)
    yield from (row for _, row in _merge(runs))
    _remove(runs)


def _merge(runs: list[Path]) -> Iterator[Item]:
    return heapq.merge(*(_read(run) for run in runs), key=itemgetter(0))


def _write(path: Path, items: Iterable[Item]) -> Path:
    source = iter(items)
    with room_on_disk(path), open(path, "wb") as f:
        while block := list(islice(source, BLOCK)):
            pickle.dump(block, f, protocol=pickle.HIGHEST_PROTOCOL)
    return path


def _read(path: Path) -> Iterator[Item]:
    with open(path, "rb") as f:
        while True:
            try:
                yield from pickle.load(f)
            except EOFError:
                return


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()
