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

import functools
import unicodedata
from collections.abc import Iterable, Iterator

import regex

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.data.filters.base import TextPair
from sdrrl_nemo.data.text.segmentation import protected_spans
from sdrrl_nemo.data.text.segmentation.invisible import INVISIBLE

SIDES = ("source", "target", "both")

Mark = tuple[str, str, str]
"""(side, text key, row key)."""


_SAME_FORM = frozenset(
    {"wide", "narrow", "compat", "noBreak", "small", "vertical", "initial", "medial", "final", "isolated"}
)
"""Unicode's compatibility forms that mean the same. Not among them: superscripts (10² is not 102), fractions, circles
and letters of mathematics (ℝ is not R)."""
_ONE_SIGN = {
    **dict.fromkeys(map(ord, "‐‑‒–—―−"), "-"),
    **dict.fromkeys(map(ord, "“”„‟«»「」『』"), '"'),
    **dict.fromkeys(map(ord, "‘’‚‛ʼ"), "'"),
}
_HIDDEN = regex.compile(f"[{INVISIBLE}]")
_QUOTE = regex.compile(r"(?<![\p{L}\p{M}\p{N}])'|'(?![\p{L}\p{M}\p{N}])(?<!\p{N}')")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_INNER_CAPITAL = regex.compile(r"\p{Ll}\p{M}*.*\p{Lu}")
_BEHIND_NUMBER = regex.compile(r"\p{N} ?\Z")
# A full stop or question mark that ends a sentence; an exclamation mark only behind a word, for 5! and n! are numbers.
_CLOSING = r"(?=[\"')\]*_]*(?:\s|\Z))"
_SENTENCE_END = regex.compile(
    rf"\s*(?:[.?؟]|(?<=[\p{{L}}\p{{M}}]{{2}}[.?!\"]*)!)+{_CLOSING}|\s*[。។៕]+|[¿¡](?=\w)", regex.VERSION1
)
_KEPT = "\uf8ff"


def folded(text: str) -> str:
    """The text without what means nothing: white space, the kind of quotes and dashes, the stops of sentences, case of
    plain words, Unicode forms of one character, characters that no reader sees.

    What could mean something stays: operators, currencies, decimal points, commas, the case of iPhone, of a unit behind
    a number (5 mW, 5 MW) and of single letters (x, X), and all of code, formulas, addresses and the like.
    """
    spans = protected_spans(text)
    kept = [text[a:b] for a, b in spans]
    at, pieces = 0, []
    for start, end in spans:
        pieces += [text[at:start], _KEPT]
        at = end
    plain = _HIDDEN.sub("", "".join(pieces) + text[at:])
    plain = unicodedata.normalize("NFC", "".join(map(_same_form, unicodedata.normalize("NFC", plain))))
    plain = _QUOTE.sub('"', plain.translate(_ONE_SIGN))
    plain = " ".join(_SENTENCE_END.sub(" ", " ".join(plain.split())).split())
    plain = _WORD.sub(_without_case, plain)
    for span in kept:
        plain = plain.replace(_KEPT, span, 1)
    return plain


@functools.cache
def _same_form(character: str) -> str:
    kind = unicodedata.decomposition(character).partition(">")[0].removeprefix("<")
    if kind in _SAME_FORM:
        return unicodedata.normalize("NFKC", character)
    digit = unicodedata.decimal(character, None)
    return character if digit is None else str(digit)


def _without_case(match: regex.Match[str]) -> str:
    word = match.group()
    if word.islower() or _INNER_CAPITAL.search(word):
        return word
    if len(word) <= 3 and _BEHIND_NUMBER.search(match.string, 0, match.start()):
        return word
    alone = len(word) == 1 and not regex.match(r" \w", match.string[match.end() :])
    return word if alone or word[0].isdigit() else word.casefold()


def text_key(text: str, *names: str) -> str:
    """16 hex digits of the folded text under ``names`` (its language, its role)."""
    return _key(folded(text), *names)


def _key(text: str, *names: str) -> str:
    return content_key("text", *names, text)


class Duplicate:
    """Same source or same target seen, within one language pair.

    ``sides``: compare ``source``, ``target`` or ``both``. Texts of fewer than ``min_characters`` characters after
    folding are not compared: "Yes." is the answer to many questions.
    """

    version = 2

    def __init__(self, sides: str = "both", min_characters: int = 20) -> None:
        if sides not in SIDES:
            raise SdrrlError(f"duplicate: unknown sides '{sides}'{suggest(sides, SIDES)}")
        self.sides, self.min_characters = sides, min_characters

    def marks(self, row_key: str, pair: TextPair) -> list[Mark]:
        """What the global step needs of a row: one mark for each text that is compared."""
        languages = (pair.source_language, pair.target_language)
        out = []
        for side, text in (("source", pair.source), ("target", pair.target)):
            if self.sides in (side, "both") and len(same := folded(text)) >= self.min_characters:
                out.append((side, _key(same, side, *languages), row_key))
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
