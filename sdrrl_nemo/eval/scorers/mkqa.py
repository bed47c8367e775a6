"""MKQA (Longpre et al. 2020): token F1 and exact match with the official normalisation of each language.

Source: ``mkqa_eval_util.py`` of apple/ml-mkqa at 651b8cc85c407270b024157aff06ee6ab8c4fc6d, which
tests/data/scorers/mkqa.json holds this to. Its quirks are kept: Korean is cut at spaces but Thai, Khmer and
Japanese into characters, Latin letters in them too, and French articles are cut off the front of longer words.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.languages import language

CODES = {
    "eng": "en", "dan": "da", "fin": "fi", "fra": "fr", "hun": "hu", "jpn": "ja", "khm": "km", "kor": "ko",
    "nob": "no", "pol": "pl", "por": "pt", "spa": "es", "tha": "th", "vie": "vi",
}  # fmt: skip
"""Languages of the table that MKQA has, and its name for them; bul, ces, ind, slv and ukr are not in it."""
PER_CHARACTER = frozenset({"jpn", "tha", "khm"})
ARTICLES = {
    "eng": r"\b(a|an|the)\b",
    "vie": r"\b(của|là|cái|chiếc|những)\b",
    "dan": r"\b(en|et)\b",
    "nob": r"\b(en|et|ei)\b",
    "fra": r"\b(le|la|l'|les|du|de|d'|des|un|une|des)",
    "por": r"\b(o|a|os|as|um|uma|uns|umas)\b",
    "spa": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "fin": r"\b(se|yks|yksi)\b",
    "hun": r"\b(a|az|egy)\b",
}
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
Unanswerable = Literal["skip", "keep"]


@dataclass(frozen=True)
class ItemScore:
    """Best over the gold answers, 0 to 1."""

    f1: float
    exact_match: float


@dataclass(frozen=True)
class CorpusScore:
    """Means in percent over ``items`` questions; ``skipped`` had no gold answer. NaN where no item is left."""

    f1: float
    exact_match: float
    items: int
    skipped: int


def normalise(text: str, lang: str) -> str:
    """Lower case, without ASCII punctuation and articles, tokens between single spaces."""
    language(lang)
    text = text.lower().translate(_NO_PUNCTUATION)
    if lang in ARTICLES:
        text = re.sub(ARTICLES[lang], " ", text)
    tokens = list(text) if lang in PER_CHARACTER else text.split()
    return " ".join(t for t in tokens if t.strip())


def gold_answers(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Strings of one question in one language, from ``answers`` of a row of mkqa.jsonl: texts and aliases, each once.

    An answer without text (unanswerable, or long) is the empty string.
    """
    found: dict[str, None] = {}
    for answer in answers:
        found[answer.get("text") or ""] = None
        found.update(dict.fromkeys(answer.get("aliases") or ()))
    return list(found)


def answerable(answers: Sequence[str]) -> bool:
    """Whether the question has a gold answer; the paper skips those that have none (appendix A)."""
    return any(answers)


def _f1(gold: list[str], found: list[str]) -> float:
    if not gold or not found:
        return float(gold == found)
    common = sum((Counter(gold) & Counter(found)).values())
    if common == 0:
        return 0.0
    recall, precision = common / len(gold), common / len(found)
    return (2.0 * precision * recall) / (precision + recall)


def score_item(prediction: str, answers: Sequence[str], lang: str) -> ItemScore:
    """F1 and exact match of one prediction, best over ``answers`` (``""`` among them: no answer is right).

    Nothing predicted and nothing to predict is 1. SdrrlError without any answer or for an unknown language.
    """
    if not answers:
        raise SdrrlError('MKQA: a question has no list of gold answers; an unanswerable one has [""]')
    found = normalise(prediction, lang)
    gold = [normalise(a, lang) for a in answers]
    return ItemScore(max(_f1(g.split(), found.split()) for g in gold), max(float(g == found) for g in gold))


def corpus_score(
    predictions: Sequence[str], answers: Sequence[Sequence[str]], lang: str, unanswerable: Unanswerable = "skip"
) -> CorpusScore:
    """Means over questions: ``skip`` leaves out those without a gold answer (the paper, and the official
    ``answerable_f1``), ``keep`` counts them, right where the prediction is empty (the official ``f1``)."""
    if len(predictions) != len(answers):
        raise SdrrlError(f"MKQA: {len(predictions)} predictions for {len(answers)} questions; score the same ones")
    kept = [(p, a) for p, a in zip(predictions, answers, strict=True) if unanswerable == "keep" or answerable(a)]
    scores = [score_item(p, a, lang) for p, a in kept]
    mean = [100.0 * math.fsum(x) / len(scores) if scores else math.nan
            for x in ([s.f1 for s in scores], [s.exact_match for s in scores])]  # fmt: skip
    return CorpusScore(mean[0], mean[1], len(scores), len(predictions) - len(scores))
