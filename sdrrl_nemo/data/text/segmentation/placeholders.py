"""Stand-ins for protected spans that a translation engine copies, and the check that it did.

The forms were chosen by measurement (docs/segmentation.md); ``measure.py`` repeats it with any engine.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import regex

from sdrrl_nemo.data.text.segmentation.spans import Span

FORMS: tuple[str, ...] = ("VAR{}", "[{}]")
"""Tried in this order; a sentence whose stand-ins do not come back under any form is cut at its spans."""

_NAMES = ("VAR", "VAL", "ARG", "SYM", "OBJ", "NUM", "TAG")
_LETTER = regex.compile(r"\p{L}")
_JOINS = regex.compile(r"[\p{Latin}\p{Cyrillic}\p{Greek}0-9_]")
"""A stand-in beside these would be read as one word with them; Thai, Japanese, Korean letters may touch it."""


@functools.lru_cache(maxsize=256)
def _whole(form: str) -> regex.Pattern[str]:
    """Every stand-in of a form as a word of its own, with the spaces beside it."""
    name = regex.escape(form.format("#")).replace(regex.escape("#"), "([0-9]+)")
    return regex.compile(rf"( ?)(?<![\p{{Latin}}\p{{Cyrillic}}\p{{Greek}}0-9_]){name}(?![\p{{Latin}}0-9_])( ?)")


@functools.lru_cache(maxsize=256)
def _loose(form: str) -> regex.Pattern[str]:
    """What could be taken for a stand-in of a form, in any case and inside a word."""
    name = regex.escape(form.format("#")).replace(regex.escape("#"), "[0-9]+")
    return regex.compile(name, regex.IGNORECASE)


def free_form(form: str, text: str) -> str:
    """The form, or one with another name, of which a text holds nothing."""
    others = (f"{'Q' * n}{{}}" for n in itertools.count(3))
    for candidate in itertools.chain((form,), (f"{name}{{}}" for name in _NAMES), others):
        if not _loose(candidate).search(text):
            return candidate
    raise AssertionError("unreachable: a text holds finitely many names")


@dataclass(frozen=True)
class Masked:
    """A sentence with stand-ins for ``spans``, whose texts are ``originals``.

    ``glued[i]``: a space was put (left, right) of the i-th stand-in, which goes again.
    """

    text: str
    form: str
    spans: tuple[Span, ...]
    originals: tuple[str, ...]
    glued: tuple[tuple[bool, bool], ...]

    def restore(self, translated: str) -> str | None:
        """The translation with the originals; None unless each stand-in is there once, no other, and marks in order."""
        if not self.originals:
            return translated
        pattern = _whole(self.form)
        found = [int(m.group(2)) for m in pattern.finditer(translated)]
        if sorted(found) != list(range(1, len(self.originals) + 1)):
            return None
        if len(_loose(self.form).findall(translated)) != len(found):
            return None
        marks = [n for n in found if self.spans[n - 1].mark]
        if marks != sorted(marks):
            return None
        return pattern.sub(self._original, translated)

    def _original(self, match: regex.Match[str]) -> str:
        number = int(match.group(2)) - 1
        left, right = self.glued[number]
        return ("" if left else match.group(1)) + self.originals[number] + ("" if right else match.group(3))


def mask(sentence: str, spans: Sequence[Span], form: str = FORMS[0]) -> Masked:
    """Put stand-ins for the spans (offsets in the sentence, disjoint and apart, in order)."""
    if not spans:
        return Masked(sentence, form, (), (), ())
    free = free_form(form, sentence)
    out: list[str] = []
    glued: list[tuple[bool, bool]] = []
    at = 0
    for number, span in enumerate(spans, 1):
        left = span.start > 0 and bool(_JOINS.match(sentence, span.start - 1))
        right = bool(_JOINS.match(sentence, span.end))
        out += [sentence[at : span.start], " " * left, free.format(number), " " * right]
        glued.append((left, right))
        at = span.end
    originals = tuple(sentence[s.start : s.end] for s in spans)
    return Masked("".join(out) + sentence[at:], free, tuple(spans), originals, tuple(glued))


def around(sentence: str, spans: Sequence[Span]) -> Iterator[tuple[str, bool]]:
    """(part, kept) whose parts concatenate to the sentence; what is not kept has a letter and no outer whitespace."""
    at = 0
    for start, end in [*((s.start, s.end) for s in spans), (len(sentence), len(sentence))]:
        between = sentence[at:start]
        core = between.strip()
        if _LETTER.search(core):
            lead = len(between) - len(between.lstrip())
            yield between[:lead], True
            yield core, False
            yield between[lead + len(core) :], True
        else:
            yield between, True
        yield sentence[start:end], True
        at = end
