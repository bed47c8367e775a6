"""One model against another: differences, paired bootstrap intervals, verdicts and goals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sacrebleu.metrics import CHRF
from sacrebleu.significance import PairedTest

from sdrrl_nemo.common.seeding import named_generator
from sdrrl_nemo.eval.scorers import bleu

BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "no clear change", "not measured"


@dataclass(frozen=True)
class Measure:
    """One figure of both models; ``better`` is ``lower`` or ``higher``.

    ``interval``: 95 % bootstrap interval of trained - base.
    """

    id: str
    title: str
    unit: str
    better: str
    base: float | None
    trained: float | None
    interval: tuple[float, float] | None = None
    p_value: float | None = None

    @property
    def difference(self) -> float | None:
        """trained - base."""
        return None if self.base is None or self.trained is None else self.trained - self.base

    @property
    def relative(self) -> float | None:
        """(trained - base) / base; None when base is 0."""
        return None if self.difference is None or not self.base else self.difference / abs(self.base)

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` only when chance is an unlikely reason (interval without 0, or p < 0.05)."""
        d = self.difference
        if d is None:
            return UNKNOWN
        if self.interval is not None:
            clear = self.interval[0] > 0 or self.interval[1] < 0
        else:
            clear = self.p_value is not None and self.p_value < 0.05
        if not clear or d == 0:
            return SAME
        return BETTER if (d < 0) == (self.better == "lower") else WORSE

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Measure:
        """Inverse of as_dict; other keys are ignored."""
        interval = (row["interval"][0], row["interval"][1]) if row["interval"] else None
        names = ("id", "title", "unit", "better", "base", "trained", "p_value")
        return cls(**{n: row[n] for n in names}, interval=interval)

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        derived = {"difference": self.difference, "relative": self.relative, "verdict": self.verdict}
        return {**asdict(self), **derived}


@dataclass(frozen=True)
class Rate:
    """A figure per item whose total is sum(value) / sum(weight); items in the same order for both models."""

    value: Sequence[float]
    weight: Sequence[float]

    @classmethod
    def mean(cls, values: Sequence[float]) -> Rate:
        """Every item counts once."""
        return cls(values, [1.0] * len(values))

    @classmethod
    def of_items(cls, items: Sequence[dict[str, Any]], field: str = "score", scale: float = 1.0) -> Rate:
        """``field`` of a task's items times ``scale``; an item without a value weighs nothing."""
        found = [item[field] for item in items]
        return cls([0.0 if x is None else scale * float(x) for x in found], [float(x is not None) for x in found])

    @property
    def total(self) -> float | None:
        """sum(value) / sum(weight); None when no item has weight."""
        weight = math.fsum(self.weight)
        return math.fsum(self.value) / weight if weight else None


def paired_interval(base: Rate, trained: Rate, samples: int, seed: int, name: str) -> tuple[float, float] | None:
    """95 % percentile interval of trained - base when the rows are drawn anew; None when no row has weight.

    The rows drawn are the same for both models (paired), which removes the spread between easy and hard rows.
    """
    arrays = [np.asarray(x, np.float64) for x in (base.value, base.weight, trained.value, trained.weight)]
    n = len(arrays[0])
    if n == 0 or not arrays[1].any() or not arrays[3].any():
        return None
    draws = named_generator(seed, "bootstrap", name).integers(0, n, size=(samples, n))
    bv, bw, tv, tw = (a[draws].sum(1) for a in arrays)
    keep = (bw > 0) & (tw > 0)
    difference = tv[keep] / tw[keep] - bv[keep] / bw[keep]
    low, high = np.percentile(difference, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Score:
    """One metric of one direction for both models; ``p_value`` of the difference, paired bootstrap resampling."""

    metric: str
    base: float
    trained: float
    p_value: float
    signature: str


def make_metrics(tokenize: str, spm: str = "") -> dict[str, Any]:
    """BLEU and chrF2; SdrrlError when sacreBLEU has no such tokeniser or lacks a package for it."""
    return {"BLEU": bleu.metric(tokenize, spm), "chrF": CHRF()}


def compare_translations(
    base: Sequence[str],
    trained: Sequence[str],
    references: Sequence[str],
    tokenize: str,
    samples: int,
    spm: str = "",
) -> list[Score]:
    """BLEU and chrF of both models' translations (same order as ``references``), 0 to 100, higher is better."""
    metrics = make_metrics(tokenize, spm)
    plain = {name: m.corpus_score(list(base), [list(references)]) for name, m in metrics.items()}
    signatures = {name: str(m.get_signature()) for name, m in metrics.items()}
    test = PairedTest(
        [("base", list(base)), ("trained", list(trained))],
        metrics,
        [list(references)],
        test_type="bs",
        n_samples=samples,
    )
    _, found = test()
    table: dict[str, Any] = dict(found)
    out = []
    for name in metrics:
        first, second = table[plain[name].name]
        # For equal outputs sacreBLEU's formula gives 1/(samples+1); there is nothing to tell apart, so p is 1.
        p_value = 1.0 if list(base) == list(trained) else float(second.p_value)
        out.append(Score(name, float(first.score), float(second.score), p_value, signatures[name]))
    return out


@dataclass(frozen=True)
class Goal:
    """One thing the training is for; ``met`` is None when it could not be measured."""

    title: str
    met: bool | None
    sentence: str


def goal_lower(title: str, m: Measure, percent: bool) -> Goal:
    """The figure must fall (or be 0 already)."""
    if m.base is None or m.trained is None:
        return Goal(title, None, "could not be measured")
    text = f"{_show(m.base, percent)} → {_show(m.trained, percent)}"
    met = m.trained < m.base or m.trained == 0.0
    note = "" if m.verdict == BETTER or not met else "; within what chance alone can do on so few samples"
    return Goal(title, met, text + note)


def goal_kept(title: str, m: Measure, tolerance: float) -> Goal:
    """The figure may rise by ``tolerance`` (relative) at most."""
    if m.base is None or m.trained is None or m.relative is None:
        return Goal(title, None, "could not be measured")
    text = f"{m.base:.3f} → {m.trained:.3f} ({m.relative:+.1%}; at most {tolerance:+.1%} accepted)"
    return Goal(title, m.relative <= tolerance, text)


def _show(x: float, percent: bool) -> str:
    return f"{x:.1%}" if percent else f"{x:.3f}"
