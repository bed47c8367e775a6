"""What a translation must carry over besides words and numbers: punctuation, lines, addresses."""

from __future__ import annotations

import re
from collections import Counter
from typing import ClassVar

from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair

_QUESTION_MARK_OPTIONAL = frozenset({"jpn", "tha", "khm"})
"""Languages that may end a question without a question mark (か。, ไหม, ទេ)."""


@FILTERS.register("punctuation")
class Punctuation(Filter):
    """Difference in the number of question marks, opening brackets, and lines.

    Those of code, addresses and the like that stand in both texts do not count. Japanese, Thai and Khmer may leave out
    a question mark, so there only question marks made up count.
    """

    version = 3
    CLASSES: ClassVar[dict[str, re.Pattern[str]]] = {
        "question marks": re.compile(r"[?？؟]"),
        "opening brackets": re.compile(r"[(\[{（［｛【]"),
        "line breaks": re.compile(r"\n"),
    }

    def __init__(self, max_difference: int = 1) -> None:
        self.max_difference = max_difference

    def reject(self, pair: TextPair) -> str | None:
        for what, pattern in self.CLASSES.items():
            a, b = (len(pattern.findall(text.strip())) for text in (pair.source_rest, pair.target_rest))
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


@FILTERS.register("urls")
class Urls(Filter):
    """URLs and e-mail addresses that are not the source's, letter by letter."""

    version = 2

    def __init__(self, max_missing: int = 0, max_extra: int = 0) -> None:
        self.max_missing, self.max_extra = max_missing, max_extra

    def reject(self, pair: TextPair) -> str | None:
        a, b = addresses(pair.source), addresses(pair.target)
        missing, extra = a - b, b - a
        if missing.total() <= self.max_missing and extra.total() <= self.max_extra:
            return None
        lost, added = sorted(missing.elements())[:3], sorted(extra.elements())[:3]
        return f"{missing.total()} addresses lost {lost}, {extra.total()} added {added}"
