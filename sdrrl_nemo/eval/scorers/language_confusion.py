"""Language Confusion Benchmark (Marchisio et al. 2024): how many answers stay in the language asked for, line and word.

Equal to ``compute_metrics.py`` of for-ai/language-confusion, commit 0cfdbb4, which takes lid.176 and a list of English
words. Line pass rate (LPR): answers all of whose lines are in the language. Word pass rate (WPR): of those, answers
without an English word; for Japanese and Korean only, because Latin script has its own words spelt as English ones.
"""

from __future__ import annotations

import math
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

from sdrrl_nemo.common.optional import require
from sdrrl_nemo.data.engines.base import LanguageIdentifier

LANGUAGES = frozenset({"eng", "fra", "por", "jpn", "kor", "ind", "spa", "vie"})
"""Languages of the table that the benchmark has."""
WORD_LANGUAGES = frozenset({"jpn", "kor"})
LEAST_WORDS = 5
"""Shorter lines are not judged."""
LEAST_CONFIDENCE = 0.3
"""A line that the identifier is less sure of is in no language."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Confusion:
    """One answer: ``lines`` long enough to judge, ``wrong`` of them in another language, an English word in a line.

    ``word_error`` is None where words are not judged: no line, a wrong line, or a language in Latin script.
    """

    lines: int
    wrong: int
    word_error: bool | None

    @property
    def line_pass(self) -> float | None:
        """1 or 0; None for an answer without a line to judge."""
        return None if not self.lines else float(self.wrong == 0)

    @property
    def word_pass(self) -> float | None:
        """1 or 0; None where words are not judged."""
        return None if self.word_error is None else float(not self.word_error)


@dataclass(frozen=True)
class PassRates:
    """0 to 1. ``lpr`` and ``accuracy`` (mean share of right lines) are 1 without any answer to judge, as in the
    official script; ``wpr`` is None for languages whose words are not judged."""

    lpr: float
    accuracy: float
    wpr: float | None
    judged: int


def english_words(lines: Sequence[str]) -> frozenset[str]:
    """Words of the official file ``words`` that count: in small letters and of at least four."""
    return frozenset(w for w in (line.strip() for line in lines) if w.islower() and len(w) > 3)


def score_items(
    answers: Sequence[str], lang: str, identifier: LanguageIdentifier, words: Collection[str]
) -> list[Confusion]:
    """Judge answers that should be in ``lang`` (ISO 639-3)."""
    judged = []
    for answer in answers:
        split = [(line, _tokens(line, lang)) for line in _normalise(answer).split("\n")]
        kept = [(line, tokens) for line, tokens in split if len(tokens) >= LEAST_WORDS]
        found = identifier.identify([line for line, _ in kept])
        wrong = sum(x.code != lang or x.probability <= LEAST_CONFIDENCE for x in found)
        spoken = [token.strip() for _, tokens in kept for token in tokens]
        judge_words = lang in WORD_LANGUAGES and bool(kept) and not wrong
        judged.append(Confusion(len(kept), wrong, any(t in words for t in spoken) if judge_words else None))
    return judged


def corpus_score(items: Sequence[Confusion], lang: str) -> PassRates:
    """Pass rates of the answers of one source in one language."""
    kept = [x for x in items if x.lines]
    passed = [x for x in kept if not x.wrong]
    lpr = 1.0 - (len(kept) - len(passed)) / max(1, len(kept))
    wpr = 1.0 - sum(bool(x.word_error) for x in passed) / max(1, len(passed)) if lang in WORD_LANGUAGES else None
    return PassRates(lpr, fmean(1 - x.wrong / x.lines for x in kept) if kept else 1.0, wpr, len(kept))


def average(rates: Sequence[float | None]) -> float | None:
    """Mean over sources, as the official script averages; None where there is none."""
    found = [r for r in rates if r is not None]
    return math.fsum(found) / len(found) if found else None


def _normalise(text: str) -> str:
    """Without what a base model asks itself next, ASCII punctuation, em dashes and Arabic commas."""
    text = text.split("\nQ:", maxsplit=1)[0].strip().translate(_PUNCTUATION)
    return text.replace("—", " ").replace("،", "")


def _tokens(line: str, lang: str) -> list[str]:
    found: list[str] = _tagger().parse(line).split() if lang == "jpn" else line.split()
    return found


@cache
def _tagger() -> Any:
    return require("fugashi", "fugashi", "eval").Tagger("-O wakati -b 50000")
