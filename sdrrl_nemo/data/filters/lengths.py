"""Length of a translation, by itself and beside its source."""

from __future__ import annotations

import unicodedata
from functools import cache

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair, require_bounds
from sdrrl_nemo.data.text.words import is_unspaced, tokenize

UNITS = ("width", "characters", "words")


def width(text: str) -> int:
    """Length that compares across scripts: ideographs, kana and Hangul count two, marks and format characters none.

    An English letter is worth about half a Japanese or Korean one, and composed and decomposed text weigh the same.
    """
    return len(text) if text.isascii() else sum(map(character_width, text))


@cache
def character_width(character: str) -> int:
    """0, 1 or 2; see `width`."""
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


@FILTERS.register("length")
class Length(Filter):
    """Translation length in characters, and its longest word (0: any) where words are written apart.

    A word of code or of an address may have any length.
    """

    version = 3

    def __init__(self, minimum: int = 1, maximum: int = 20_000, longest_word: int = 0) -> None:
        require_bounds(minimum, maximum)
        self.minimum, self.maximum, self.longest_word = minimum, maximum, longest_word

    def reject(self, pair: TextPair) -> str | None:
        n = len(pair.target.strip())
        if not self.minimum <= n <= self.maximum:
            return f"{n} characters, not {self.minimum} to {self.maximum}"
        if self.longest_word:
            text = pair.target_prose
            spans = tokenize(text, pair.target_language)
            longest = max((b - a for a, b in spans if not is_unspaced(text[a])), default=0)
            if longest > self.longest_word:
                return f"a word of {longest} characters, more than {self.longest_word}"
        return None


@FILTERS.register("length_ratio")
class LengthRatio(Filter):
    """Length of the translation over that of the source; ``slack`` units of difference always pass.

    ``unit``: ``width`` (see `width`), ``characters``, or ``words`` as WMT's rules count. The whole texts are compared,
    and what they have besides code, formulas and the like: a long listing that both share would hide a lost sentence.
    """

    version = 3

    def __init__(self, minimum: float = 0.5, maximum: float = 2.0, slack: int = 15, unit: str = "width") -> None:
        require_bounds(minimum, maximum)
        if unit not in UNITS:
            raise SdrrlError(f"unknown unit '{unit}'{suggest(unit, UNITS)}")
        self.minimum, self.maximum, self.slack, self.unit = minimum, maximum, slack, unit

    def _measure(self, text: str, code: str) -> int:
        if self.unit == "words":
            return len(tokenize(text, code))
        return width(text.strip()) if self.unit == "width" else len(text.strip())

    def reject(self, pair: TextPair) -> str | None:
        return self._compare(pair, pair.source, pair.target) or self._compare(pair, pair.source_rest, pair.target_rest)

    def _compare(self, pair: TextPair, source: str, target: str) -> str | None:
        a = self._measure(source, pair.source_language)
        b = self._measure(target, pair.target_language)
        if abs(a - b) <= self.slack or (a and self.minimum <= b / a <= self.maximum):
            return None
        ratio = f"{b / a:.2f} times the source's" if a else "the source is empty"
        return f"{self.unit} {b} for {a}: {ratio}, not {self.minimum:g} to {self.maximum:g}"
