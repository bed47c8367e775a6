"""What a translation must carry over: numbers, punctuation, URLs.

Digits of every script are digits: Thai ๑, Khmer ១, full-width １. Numbers written in words are not read: neither the
English "seven", nor 七 or 万 in Japanese, นับล้าน in Thai, ដប់ in Khmer or 만 in Korean, so "20,000" beside "2万" counts
as a number lost and one made up. ``max_missing`` and ``max_extra`` make room for that.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import ClassVar

from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair

NUMBER = re.compile(r"\d+(?:[.,\u00a0\u202f' ]\d{3})+(?!\d)|\d+(?:[.,:]\d+)*")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_FULL_WIDTH = str.maketrans("，．：", ",.:")


def numbers(text: str) -> Counter[str]:
    """Numbers of a text with their separators taken out: 1,000.5 and 1 000,5 are both 10005; digits become ASCII."""
    digits = _OTHER_DIGIT.sub(lambda m: str(unicodedata.decimal(m.group())), text.translate(_FULL_WIDTH))
    return Counter(re.sub(r"\D", "", m) for m in NUMBER.findall(digits))


@FILTERS.register("numbers")
class Numbers(Filter):
    """Numbers of the source that the translation lost, and numbers it made up."""

    version = 2

    def __init__(self, max_missing: int = 0, max_extra: int = 1) -> None:
        self.max_missing, self.max_extra = max_missing, max_extra

    def reject(self, pair: TextPair) -> str | None:
        a, b = numbers(pair.source), numbers(pair.target)
        missing, extra = a - b, b - a
        if missing.total() <= self.max_missing and extra.total() <= self.max_extra:
            return None
        lost, added = sorted(missing.elements())[:5], sorted(extra.elements())[:5]
        return f"{missing.total()} numbers lost {lost}, {extra.total()} added {added}"


_QUESTION_MARK_OPTIONAL = frozenset({"jpn", "tha", "khm"})
"""Languages that may end a question without a question mark (か。, ไหม, ទេ)."""


@FILTERS.register("punctuation")
class Punctuation(Filter):
    """Difference in the number of question marks, opening brackets, and lines.

    Japanese, Thai and Khmer may leave out a question mark, so there only question marks made up count.
    """

    version = 2
    CLASSES: ClassVar[dict[str, re.Pattern[str]]] = {
        "question marks": re.compile(r"[?？؟]"),
        "opening brackets": re.compile(r"[(\[{（［｛【]"),
        "line breaks": re.compile(r"\n"),
    }

    def __init__(self, max_difference: int = 1) -> None:
        self.max_difference = max_difference

    def reject(self, pair: TextPair) -> str | None:
        for what, pattern in self.CLASSES.items():
            a, b = len(pattern.findall(pair.source.strip())), len(pattern.findall(pair.target.strip()))
            if what == "question marks" and pair.target_language in _QUESTION_MARK_OPTIONAL:
                a = min(a, b)
            if what == "question marks" and pair.source_language in _QUESTION_MARK_OPTIONAL:
                b = min(a, b)
            if abs(a - b) > self.max_difference:
                return f"{b} {what} for {a}, more than {self.max_difference} apart"
        return None


# ASCII alone: Japanese, Thai and Khmer text may follow an address without a space.
_ADDRESS = re.compile(
    r"(?:https?://|www\.)[\w\-.~:/?#\[\]@!$&'*+,;=%]+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.ASCII | re.IGNORECASE
)


def addresses(text: str) -> Counter[str]:
    """URLs and e-mail addresses without the punctuation of the sentence after them."""
    return Counter(m.rstrip(".,;:!?'") for m in _ADDRESS.findall(text))


def without_addresses(text: str) -> str:
    """The text with a space where URLs and e-mail addresses were: their letters are of no language."""
    return _ADDRESS.sub(" ", text)


@FILTERS.register("urls")
class Urls(Filter):
    """URLs and e-mail addresses that are not the source's, letter by letter."""

    def __init__(self, max_missing: int = 0, max_extra: int = 0) -> None:
        self.max_missing, self.max_extra = max_missing, max_extra

    def reject(self, pair: TextPair) -> str | None:
        a, b = addresses(pair.source), addresses(pair.target)
        missing, extra = a - b, b - a
        if missing.total() <= self.max_missing and extra.total() <= self.max_extra:
            return None
        lost, added = sorted(missing.elements())[:3], sorted(extra.elements())[:3]
        return f"{missing.total()} addresses lost {lost}, {extra.total()} added {added}"
