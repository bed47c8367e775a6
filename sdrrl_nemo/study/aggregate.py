"""Measures as sums over items, so that a resampled test set is scored by adding up what its items bring.

An item is a row of numbers; a measure's value follows from the column sums alone:

    mean   [score, weight]                                  sum(score) / sum(weight)
    bleu   sacreBLEU's [hypothesis length, reference length, matches 1..4, n-grams 1..4]
    chrf   sacreBLEU's [hypothesis, reference, common] for each character order 1..6 (chrF++: and word order 1, 2)

The corpus formulas are sacreBLEU's (2.6.0: ``smooth:exp``, chrF2), for arrays of sums; a test holds them against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from sacrebleu.metrics import BLEU, CHRF

from sdrrl_nemo.compat.private import corpus_statistics

Array = npt.NDArray[np.float64]
CHRF_BETA = 2.0


def ratio(sums: Array) -> Array:
    """[..., 2] -> [...]: a weighted mean; NaN where no item has weight."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def bleu(sums: Array) -> Array:
    """[..., 10] -> [...]: corpus BLEU, 0 to 100, exponential smoothing (sacrebleu.metrics.bleu.BLEU.compute_bleu)."""
    hypothesis, reference, correct, total = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    with np.errstate(divide="ignore", invalid="ignore"):
        brevity = np.where(hypothesis < reference, np.exp(1.0 - reference / hypothesis), 1.0)
        zeros = np.cumsum(correct == 0, axis=-1)  # the k-th order without a match counts as 1 / 2^k of a match
        precision = np.where(correct > 0, 100.0 * correct / total, 100.0 / (2.0**zeros * total))
        score = brevity * np.exp(np.log(precision).sum(-1) / 4)
    whole = (total > 0).all(-1) & (correct > 0).any(-1) & (hypothesis > 0)
    return np.where(whole, score, 0.0)


def chrf(sums: Array) -> Array:
    """[..., 18 or 24] -> [...]: corpus chrF2 or chrF++, 0 to 100 (sacrebleu.metrics.chrf.CHRF._compute_f_score)."""
    hypothesis, reference, common = (sums[..., i::3] for i in range(3))
    counted = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(counted.sum(-1), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(counted, common / hypothesis, 0.0).sum(-1) / orders
        recall = np.where(counted, common / reference, 0.0).sum(-1) / orders
        factor = CHRF_BETA**2
        score = 100.0 * (1 + factor) * precision * recall / (factor * precision + recall)
    return np.where(precision + recall > 0, score, 0.0)


KINDS: dict[str, Callable[[Array], Array]] = {"mean": ratio, "bleu": bleu, "chrf": chrf}
"""Kind of a measure -> value from column sums [..., k]."""


def statistics(metric: BLEU | CHRF, hypotheses: Sequence[str], references: Sequence[str]) -> list[list[float]]:
    """One row of statistics a sentence, as sacreBLEU itself collects them for its corpus score and its bootstrap."""
    if not hypotheses:
        return []
    rows = corpus_statistics(metric, list(hypotheses), [list(references)])
    return [[float(x) for x in row] for row in rows]


def value(kind: str, items: Array) -> float:
    """The measure over all items [n, k]."""
    return float(KINDS[kind](np.asarray(items, np.float64).sum(0)))
