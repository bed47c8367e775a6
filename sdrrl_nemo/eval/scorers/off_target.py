"""Off-target rate: how often a text is not in the language it should be in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sdrrl_nemo.data.engines.base import LanguageIdentifier

OTHER = "other"
"""Label of a text whose language the identifier cannot name."""


@dataclass(frozen=True)
class OffTarget:
    """``languages``: label per text, None where it is too short to judge; ``expected``: the language it should have."""

    expected: str
    languages: list[str | None]

    @property
    def judged(self) -> int:
        """Texts long enough to judge."""
        return sum(x is not None for x in self.languages)

    @property
    def too_short(self) -> int:
        """Texts left out of the rate."""
        return len(self.languages) - self.judged

    @property
    def off(self) -> int:
        """Judged texts in another language."""
        return sum(x is not None and x != self.expected for x in self.languages)

    @property
    def rate(self) -> float | None:
        """off / judged; None when nothing could be judged."""
        return self.off / self.judged if self.judged else None

    def counts(self) -> dict[str, int]:
        """Judged texts per language, most frequent first."""
        found = Counter(x for x in self.languages if x is not None)
        return dict(sorted(found.items(), key=lambda kv: (-kv[1], kv[0])))


def letters(text: str) -> int:
    """Letters of any script; digits, punctuation and spaces tell nothing about the language."""
    return sum(c.isalpha() for c in text)


def off_target(identifier: LanguageIdentifier, texts: Sequence[str], expected: str, min_letters: int) -> OffTarget:
    """Judge each text of at least ``min_letters`` letters; a language that has no name here counts as ``other``."""
    long_enough = [i for i, t in enumerate(texts) if letters(t) >= min_letters]
    found = identifier.identify([texts[i] for i in long_enough])
    languages: list[str | None] = [None] * len(texts)
    for i, (code, _) in zip(long_enough, found, strict=True):
        languages[i] = code or OTHER
    return OffTarget(expected, languages)
