"""Heuristic filters of translations, after Zeng et al. 2021 (the paper, section 4.1); each registered by name.

A filter looks at one source text and its translation and says why it rejects them, or None. Thresholds come from YAML.
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.registry import Registry
from sdrrl_nemo.data.languages import language

NUMBER = re.compile(r"\d+(?:[.,\u00a0\u202f' ]\d{3})+(?!\d)|\d+(?:[.,:]\d+)*")
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class TextPair:
    """A text and its translation; languages by ISO 639-3. A text judged alone is its own translation."""

    source: str
    target: str
    source_language: str
    target_language: str


class Filter(ABC):
    """One reason to reject a translation."""

    version: int = 1
    """Goes up whenever the same thresholds may reject other texts; part of the stage fingerprint."""

    @abstractmethod
    def reject(self, pair: TextPair) -> str | None:
        """The measured figure that is out of bounds, as words, or None when the pair is fine."""


FILTERS: Registry[Filter] = Registry("filter")


def make_filters(chosen: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Filter]:
    """Filters in the order of the configuration; SdrrlError for an unknown name or option, or one named twice."""
    filters: dict[str, Filter] = {}
    for name, options in chosen:
        if name in filters:
            raise SdrrlError(f"filters: '{name}' is named twice")
        filters[name] = FILTERS.create(name, **options)
    return filters


def units(text: str, code: str) -> list[str]:
    """Words in lower case; letters where the language has no spaces."""
    words = WORD.findall(text.lower())
    return words if language(code).spaces else [c for word in words for c in word]


@FILTERS.register("length")
class Length(Filter):
    """Translation length in characters."""

    def __init__(self, minimum: int = 1, maximum: int = 20_000) -> None:
        self.minimum, self.maximum = minimum, maximum

    def reject(self, pair: TextPair) -> str | None:
        n = len(pair.target.strip())
        return None if self.minimum <= n <= self.maximum else f"{n} characters"


@FILTERS.register("length_ratio")
class LengthRatio(Filter):
    """Characters of the translation over those of the source; ``slack`` characters of difference always pass."""

    def __init__(self, minimum: float = 0.5, maximum: float = 2.0, slack: int = 15) -> None:
        self.minimum, self.maximum, self.slack = minimum, maximum, slack

    def reject(self, pair: TextPair) -> str | None:
        a, b = len(pair.source.strip()), len(pair.target.strip())
        if abs(a - b) <= self.slack or (a and self.minimum <= b / a <= self.maximum):
            return None
        return f"{b} characters for {a}"


@FILTERS.register("repetition")
class Repetition(Filter):
    """Share of n-grams that only repeat earlier ones; texts with fewer than ``min_ngrams`` are too short to tell."""

    def __init__(self, n: int = 4, maximum: float = 0.3, min_ngrams: int = 8) -> None:
        self.n, self.maximum, self.min_ngrams = n, maximum, min_ngrams

    def reject(self, pair: TextPair) -> str | None:
        tokens = units(pair.target, pair.target_language)
        grams = [tuple(tokens[i : i + self.n]) for i in range(len(tokens) - self.n + 1)]
        if len(grams) < self.min_ngrams:
            return None
        share = 1 - len(set(grams)) / len(grams)
        return f"{share:.2f} of {self.n}-grams repeat" if share > self.maximum else None


@FILTERS.register("copy")
class Copy(Filter):
    """Source left untranslated: share of the translation's words that the source has too (as a multiset)."""

    def __init__(self, maximum: float = 0.6, min_words: int = 4) -> None:
        self.maximum, self.min_words = maximum, min_words

    def reject(self, pair: TextPair) -> str | None:
        def words(text: str, code: str) -> Counter[str]:
            return Counter(w for w in units(text, code) if not w.isdigit())

        source, target = words(pair.source, pair.source_language), words(pair.target, pair.target_language)
        total = target.total()
        if total < self.min_words:
            return None
        share = (source & target).total() / total
        return f"{share:.2f} of the words are the source's" if share > self.maximum else None


def numbers(text: str) -> Counter[str]:
    """Numbers of a text with their separators taken out: 1,000.5 and 1 000,5 are both 10005; digits become ASCII."""
    digits = "".join(str(unicodedata.decimal(c, c)) for c in text)
    return Counter(re.sub(r"\D", "", m) for m in NUMBER.findall(digits))


@FILTERS.register("numbers")
class Numbers(Filter):
    """Numbers of the source that the translation lost, and numbers it made up."""

    def __init__(self, max_missing: int = 0, max_extra: int = 1) -> None:
        self.max_missing, self.max_extra = max_missing, max_extra

    def reject(self, pair: TextPair) -> str | None:
        a, b = numbers(pair.source), numbers(pair.target)
        missing, extra = a - b, b - a
        if missing.total() <= self.max_missing and extra.total() <= self.max_extra:
            return None
        return f"lost {sorted(missing.elements())[:5]}, added {sorted(extra.elements())[:5]}"


@FILTERS.register("punctuation")
class Punctuation(Filter):
    """Difference in the number of question marks, opening brackets, URLs, and lines."""

    CLASSES: ClassVar[dict[str, re.Pattern[str]]] = {
        "question marks": re.compile(r"[?？؟]"),
        "opening brackets": re.compile(r"[(\[{（［｛【]"),
        "URLs": re.compile(r"https?://|www\."),
        "line breaks": re.compile(r"\n"),
    }

    def __init__(self, max_difference: int = 1) -> None:
        self.max_difference = max_difference

    def reject(self, pair: TextPair) -> str | None:
        for what, pattern in self.CLASSES.items():
            a, b = len(pattern.findall(pair.source.strip())), len(pattern.findall(pair.target.strip()))
            if abs(a - b) > self.max_difference:
                return f"{b} {what} for {a}"
        return None


# ISO 15924 code -> how names of its letters begin in the Unicode character database.
SCRIPT_NAMES = {
    "Latn": ("LATIN",),
    "Cyrl": ("CYRILLIC",),
    "Hira": ("HIRAGANA",),
    "Kana": ("KATAKANA", "HALFWIDTH KATAKANA"),
    "Hani": ("CJK UNIFIED", "CJK COMPATIBILITY"),
    "Hang": ("HANGUL",),
    "Thai": ("THAI",),
    "Khmr": ("KHMER",),
}


def script_share(text: str, code: str) -> float | None:
    """Share of the letters that belong to the language's scripts; None for a text without letters."""
    prefixes = tuple(p for script in language(code).scripts for p in SCRIPT_NAMES[script])
    letters = [c for c in text if c.isalpha() and c not in "ー々"]
    if not letters:
        return None
    return sum(unicodedata.name(c, "").startswith(prefixes) for c in letters) / len(letters)


@FILTERS.register("script")
class Script(Filter):
    """Share of the translation's letters that are of the target language's script."""

    def __init__(self, minimum: float = 0.6, min_letters: int = 4) -> None:
        self.minimum, self.min_letters = minimum, min_letters

    def reject(self, pair: TextPair) -> str | None:
        share = script_share(pair.target, pair.target_language)
        if share is None or sum(map(str.isalpha, pair.target)) < self.min_letters or share >= self.minimum:
            return None
        return f"{share:.2f} of the letters are of the language's script"
