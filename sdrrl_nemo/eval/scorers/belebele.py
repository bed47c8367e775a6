"""Belebele (Bandarkar et al. 2023): accuracy of four choices, from likelihoods or from a generated letter.

Likelihoods are judged as lm-evaluation-harness 0.4.13 judges its belebele tasks (``_default_template_yaml``,
``output_type: multiple_choice``): ``acc`` takes the likeliest choice, ``acc_norm`` the likeliest per character of the
choice, ``acc_bytes`` per UTF-8 byte; of equal ones the first.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sdrrl_nemo.common.errors import SdrrlError

LETTERS = ("A", "B", "C", "D")
Norm = Literal["none", "characters", "bytes"]

_FIRST = re.compile(r"^[\s\"'“‘«*#>]*(?:([A-D])(?=[).:,;。、：．\]*\"'”’»\r\n]|\s*$)(?![’']\w)|([B-D])(?=\s))")
"""A capital letter that the text begins with. Before a space only B to D: in many languages A is a word."""
_MARKED = re.compile(r"(?<![A-Za-z0-9])[(\[（]([A-Da-d])[)\]）]")
"""A letter in brackets, as prompts show the choices, anywhere."""
_SAID = re.compile(r"\b(?i:answer|choice|option)\s*(?i:is|:|=)?\s*[\"'*]*([A-D])\b(?![’']\w)")
"""``the answer is B``; what other languages say so with is not known here, and counts as no answer."""


@dataclass(frozen=True)
class Choice:
    """``picked``: index of the choice, None for no answer; ``score``: 1.0 where it is the correct one."""

    picked: int | None
    score: float


@dataclass(frozen=True)
class Accuracy:
    """Percent correct of ``items``; ``unanswered`` of them named no choice and count as wrong."""

    accuracy: float
    items: int
    unanswered: int


def score_item(
    log_likelihoods: Sequence[float], correct: int, choices: Sequence[str] = LETTERS, norm: Norm = "none"
) -> Choice:
    """Judge one question by the log-likelihoods (nats) of its choices as continuations, ``correct`` counted from 0.

    ``choices`` are the texts whose likelihoods these are: the letters, or with ``norm`` the full answers.
    """
    if len(log_likelihoods) != len(choices) or not 0 <= correct < len(choices):
        raise SdrrlError(
            f"Belebele: {len(log_likelihoods)} log-likelihoods and correct choice {correct} for {len(choices)} choices"
        )
    if any(math.isnan(x) for x in log_likelihoods):
        raise SdrrlError("Belebele: a log-likelihood is not a number; the model's output is broken")
    if norm == "none":
        lengths = [1.0] * len(choices)
    else:
        lengths = [float(len(c if norm == "characters" else c.encode())) for c in choices]
        if not all(lengths):
            raise SdrrlError("Belebele: a choice is empty, so its likelihood has no length to be divided by")
    scores = [x / n for x, n in zip(log_likelihoods, lengths, strict=True)]
    picked = scores.index(max(scores))
    return Choice(picked, float(picked == correct))


def extract_letter(text: str) -> int | None:
    """Index of the choice that a generated answer names, None for no answer (docs/scorers.md lists the rules)."""
    for pattern in (_FIRST, _MARKED, _SAID):
        found = {(m[1] or m[m.re.groups]).upper() for m in pattern.finditer(text)}
        if len(found) == 1:
            return LETTERS.index(found.pop())
        if found:
            return None
    return None


def score_generated(text: str, correct: int) -> Choice:
    """Judge one generated answer; no answer, or two letters, is wrong."""
    if not 0 <= correct < len(LETTERS):
        raise SdrrlError(f"Belebele: correct choice {correct} is not one of 0 to {len(LETTERS) - 1}")
    picked = extract_letter(text)
    return Choice(picked, float(picked == correct))


def corpus_score(items: Sequence[Choice]) -> Accuracy:
    """Accuracy in percent of judged questions."""
    picked = Counter(x.picked is None for x in items)
    accuracy = 100.0 * math.fsum(x.score for x in items) / len(items) if items else math.nan
    return Accuracy(accuracy, len(items), picked[True])
