"""Sources that were left untranslated."""

from __future__ import annotations

from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair, require_share
from sdrrl_nemo.data.text.words import is_unspaced, words


@FILTERS.register("copy")
class Copy(Filter):
    """Share of the translation's different words that the source has too.

    Left out is what is the same in many languages: numbers, single letters, names (with a capital on both sides), and
    code, formulas and addresses. Where fewer than ``min_words`` words are left, the text passes: a name is its own
    translation.
    """

    version = 4

    def __init__(self, maximum: float = 0.6, min_words: int = 4) -> None:
        require_share("maximum", maximum)
        self.maximum, self.min_words = maximum, min_words

    def reject(self, pair: TextPair) -> str | None:
        source = _different_words(pair.source_prose, pair.source_language)
        target = _different_words(pair.target_prose, pair.target_language)
        names = {word for word in source & target if word != word.lower()}
        counted = {word.lower() for word in target - names}
        if len(counted) < self.min_words:
            return None
        share = len({word.lower() for word in source} & counted) / len(counted)
        return (
            f"{share:.2f} of the words are the source's, more than {self.maximum:.2f}" if share > self.maximum else None
        )


def _different_words(text: str, code: str) -> set[str]:
    """The words but numbers and single letters; those of a text in capitals are small, for they are no names."""
    found = words(text.lower() if text.isupper() else text, code)
    return {word for word in found if not word.isdigit() and (len(word) > 1 or is_unspaced(word))}
