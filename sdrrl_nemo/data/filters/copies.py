"""Sources that were left untranslated."""

from __future__ import annotations

from collections import Counter

from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair, require_share
from sdrrl_nemo.data.text.words import words


@FILTERS.register("copy")
class Copy(Filter):
    """Share of the translation's words that the source has too (as a multiset); numbers do not count.

    Words of code, formulas, addresses and the like are of no language and do not count either. Texts of fewer than
    ``min_words`` other words pass: a name is its own translation.
    """

    version = 3

    def __init__(self, maximum: float = 0.6, min_words: int = 4) -> None:
        require_share("maximum", maximum)
        self.maximum, self.min_words = maximum, min_words

    def reject(self, pair: TextPair) -> str | None:
        def count(text: str, code: str) -> Counter[str]:
            return Counter(w for w in words(text.lower(), code) if not w.isdigit())

        source = count(pair.source_prose, pair.source_language)
        target = count(pair.target_prose, pair.target_language)
        total = target.total()
        if total < self.min_words:
            return None
        share = (source & target).total() / total
        return (
            f"{share:.2f} of the words are the source's, more than {self.maximum:.2f}" if share > self.maximum else None
        )
