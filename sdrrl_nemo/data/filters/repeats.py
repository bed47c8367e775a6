"""Texts that go round in circles: repeated n-grams, characters and sentences."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import groupby

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair, require_share
from sdrrl_nemo.data.text.words import words


@FILTERS.register("repetition")
class Repetition(Filter):
    """Share of word n-grams that only repeat earlier ones; fewer than ``min_ngrams`` n-grams are too few to tell.

    A translation may repeat itself as much as its source does, and a little more, since another language has other
    words; its code and tables are the source's and do not count. A text judged alone is looked at as a whole.
    """

    version = 3

    def __init__(self, n: int = 4, maximum: float = 0.3, min_ngrams: int = 8) -> None:
        if n < 1:
            raise SdrrlError(f"n {n} is too small, it must be at least 1")
        require_share("maximum", maximum)
        self.n, self.maximum, self.min_ngrams = n, maximum, min_ngrams

    def reject(self, pair: TextPair) -> str | None:
        share = self._share(pair.target if pair.alone else pair.target_prose, pair.target_language)
        if share is None or share <= self.maximum:
            return None
        own = None if pair.alone else self._share(pair.source_prose, pair.source_language)
        allowed = self.maximum if own is None else max(self.maximum, own + _MORE_THAN_SOURCE)
        return f"{share:.2f} of {self.n}-grams repeat, more than {allowed:.2f}" if share > allowed else None

    def _share(self, text: str, code: str) -> float | None:
        """Share of the n-grams that repeat earlier ones; None where there are too few."""
        tokens = words(text.lower(), code)
        grams = [tuple(tokens[i : i + self.n]) for i in range(len(tokens) - self.n + 1)]
        return 1 - len(set(grams)) / len(grams) if len(grams) >= self.min_ngrams else None


_MORE_THAN_SOURCE = 0.1


def longest_run(text: str) -> tuple[int, str]:
    """(length, character) of the longest run of one character; white space does not count."""
    runs = ((sum(1 for _ in group), c) for c, group in groupby(text) if not c.isspace())
    return max(runs, default=(0, ""))


@FILTERS.register("repeated_characters")
class RepeatedCharacters(Filter):
    """One character more than ``maximum`` times in a row, and more often than the source has it (rules, tables)."""

    version = 2

    def __init__(self, maximum: int = 10) -> None:
        self.maximum = maximum

    def reject(self, pair: TextPair) -> str | None:
        n, character = longest_run(unicodedata.normalize("NFC", pair.target))
        # a text judged alone is no excuse for itself
        if n <= max(self.maximum, 0 if pair.alone else longest_run(pair.source)[0]):
            return None
        return f"'{character}' {n} times in a row, more than {self.maximum}"


# Ends of sentences; Thai writes a space there, so its clauses are told apart by spaces.
_SENTENCE = re.compile(r"[.!?。．！？។៕\n]+")
_THAI_SENTENCE = re.compile(r"[.!?\s]+")


def sentences(text: str, code: str) -> list[str]:
    """Sentences (Thai: clauses) in lower case without the signs that end them."""
    pattern = _THAI_SENTENCE if code == "tha" else _SENTENCE
    parts = (" ".join(part.split()) for part in pattern.split(text.lower()))
    return [part for part in parts if part]


@FILTERS.register("repeated_sentences")
class RepeatedSentences(Filter):
    """One sentence of ``min_characters`` or more, more than ``maximum`` times and more often than one of the source.

    Lines of code and tables are no sentences, except in a text that is judged alone.
    """

    version = 2

    def __init__(self, maximum: int = 2, min_characters: int = 6) -> None:
        self.maximum, self.min_characters = maximum, min_characters

    def _most(self, text: str, code: str) -> int:
        counts = Counter(s for s in sentences(text, code) if len(s) >= self.min_characters)
        return max(counts.values(), default=0)

    def reject(self, pair: TextPair) -> str | None:
        n = self._most(pair.target if pair.alone else pair.target_prose, pair.target_language)
        # a text judged alone is no excuse for itself
        allowed = 0 if pair.alone else self._most(pair.source_prose, pair.source_language)
        if n <= max(self.maximum, allowed):
            return None
        return f"one sentence stands {n} times, more than {self.maximum}"
