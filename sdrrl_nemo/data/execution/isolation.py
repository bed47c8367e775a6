"""Finding the rows that kill their worker (a crash in native code, too little memory), by halves.

A row on which a stage raises says so itself (``shard.py``); a dead worker says nothing. Once a shard has killed as many
workers as may be, it is worked on in parts, and the worker notes in a file which part it is about to try. The driver
reads the note of a worker that died, and the next one does not try that part whole again. A single row that goes on
killing is dropped like one that raises. The parts are the same halves, so what is left is batched the same way.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path

from sdrrl_nemo.common.fileio import write_json

Span = tuple[int, int]
"""Rows ``begin`` to ``end - 1`` of a shard."""


TRIES_ALONE = 2
"""Workers that a single row may kill before it is dropped."""
MOST_ROWS = 2
"""Rows of a shard that may be dropped this way: with more of them it is the engine or the machine."""


def note_path(directory: Path, number: int) -> Path:
    """The note of one shard; named as a temporary file, so that a killed run's is removed with those."""
    return directory / f".{number:05d}.trying.tmp"


class Killers:
    """In the worker: which parts of a shard killed their workers before."""

    def __init__(self, note: Path, spans: frozenset[Span]) -> None:
        self.note, self.spans = note, spans

    def trying(self, span: Span) -> None:
        """Leave a note that outlives this process."""
        write_json(self.note, span)

    def done(self) -> None:
        """The shard is finished."""
        self.note.unlink(missing_ok=True)


class Suspect:
    """In the driver: a shard that killed its workers, and what each of their notes said."""

    def __init__(self, rows: int, retries: int) -> None:
        self.whole, self.retries = (0, rows), retries
        self.deaths: Counter[Span] = Counter()
        self.unexplained = 0

    def blame(self, note: Path) -> None:
        """One more worker died; before the first time, it always was on the whole shard."""
        span = _read(note) if self.deaths else self.whole
        if span is None:
            self.unexplained += 1  # while the shard was read, or its files were written
        else:
            self.deaths[span] += 1

    @property
    def hopeless(self) -> bool:
        """Whether it is not the rows."""
        return self.unexplained > self.retries or sum(map(_single, self.killers())) > MOST_ROWS

    def killers(self) -> frozenset[Span]:
        """Parts not to be tried whole again."""
        return frozenset(s for s, n in self.deaths.items() if n >= (TRIES_ALONE if _single(s) else 1))


def _single(span: Span) -> bool:
    return span[1] - span[0] == 1


def _read(note: Path) -> Span | None:
    """What the note says; it is gone afterwards."""
    with contextlib.suppress(FileNotFoundError):
        begin, end = json.loads(note.read_text(encoding="utf-8"))
        note.unlink()
        return begin, end
    return None
