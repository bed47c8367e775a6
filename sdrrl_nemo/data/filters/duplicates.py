"""Rows whose source or whose target another row has too: which of them stays does not depend on order or workers.

Of all rows with one text the one with the smallest row key stays. Row keys are hashes of contents, so the choice is as
good as random, and the same whatever the order of the rows, the shards or the number of workers:

    marks  = [mark for row in rows for mark in duplicate.marks(row.key, pair)]     # per row, in any worker
    marks.sort()                                                                   # once, externally where it is large
    for row_key, reason in duplicate.repeats(marks): ...                           # one pass, constant memory

Sources and targets are compared in one go: a row goes when it is not the first of its source or not the first of its
target, even where that first row goes for its other side; one pass can then decide. `Duplicate.select` does the three
steps in memory.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.data.filters.base import TextPair

SIDES = ("source", "target", "both")

Mark = tuple[str, str, str]
"""(side, text key, row key)."""


def folded(text: str) -> str:
    """The text without what makes no difference: case, width and composition (NFKC), punctuation, white space."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(" " if unicodedata.category(c)[0] in "PSZC" else c for c in plain).split())


def text_key(text: str, *names: str) -> str:
    """16 hex digits of the folded text under ``names`` (its language, its role)."""
    return content_key("text", *names, folded(text))


class Duplicate:
    """Same source or same target seen, within one language pair.

    ``sides``: compare ``source``, ``target`` or ``both``. Texts of fewer than ``min_characters`` characters after
    folding are not compared: "Yes." is the answer to many questions.
    """

    version = 1

    def __init__(self, sides: str = "both", min_characters: int = 20) -> None:
        if sides not in SIDES:
            raise SdrrlError(f"duplicate: unknown sides '{sides}'{suggest(sides, SIDES)}")
        self.sides, self.min_characters = sides, min_characters

    def marks(self, row_key: str, pair: TextPair) -> list[Mark]:
        """What the global step needs of a row: one mark for each text that is compared."""
        languages = (pair.source_language, pair.target_language)
        out = []
        for side, text in (("source", pair.source), ("target", pair.target)):
            if self.sides in (side, "both") and len(folded(text)) >= self.min_characters:
                out.append((side, text_key(text, side, *languages), row_key))
        return out

    def repeats(self, marks: Iterable[Mark]) -> Iterator[tuple[str, str]]:
        """(row key, reason) of each row to drop, from **sorted** marks; a row may come up twice, once for each side.

        SdrrlError when the marks are not sorted.
        """
        previous: Mark | None = None
        first, copies = "", 0
        for mark in marks:
            if previous is not None and mark < previous:
                raise SdrrlError("duplicate: the marks are not sorted; sort them by side, text key and row key")
            side, _, row = mark
            if previous is None or previous[:2] != mark[:2]:
                first, copies = row, 1
            elif row != previous[2]:
                copies += 1
                yield row, f"same {side} as row {first} (copy {copies})"
            previous = mark

    def select(self, rows: Iterable[tuple[str, TextPair]]) -> dict[str, str]:
        """Row key -> reason of the rows to drop; in memory."""
        marks = sorted(mark for key, pair in rows for mark in self.marks(key, pair))
        reasons: dict[str, str] = {}
        for key, reason in self.repeats(marks):
            reasons.setdefault(key, reason)
        return reasons
