"""Is a method's difference to the reference method more than the luck of the test items? Paired bootstrap and Holm.

Items are drawn anew, the same ones for both methods (paired, Koehn 2004); a method's figure is the mean over its
training seeds. The spread over seeds is a second source of chance that this test does not see; it is shown beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdrrl_nemo.common.seeding import named_generator
from sdrrl_nemo.study.aggregate import KINDS, Array


@dataclass(frozen=True)
class Comparison:
    """other - reference: ``interval`` 95 % percentile; ``p``: two-sided; ``drawn``: the difference on each resample."""

    difference: float
    interval: tuple[float, float]
    p: float
    drawn: Array
    items: int


def resample_counts(seed: int, name: str, items: int, resamples: int) -> npt.NDArray[np.float64]:
    """How often each item is drawn, [resamples, items]; the same for every method, since ``name`` is the measure's."""
    rng = named_generator(seed, "study bootstrap", name)
    return rng.multinomial(items, np.full(items, 1.0 / items), size=resamples).astype(np.float64)


def resampled(kind: str, runs: Sequence[Array], counts: Array) -> Array:
    """Mean over ``runs`` (items [n, k] of each seed) of the measure on each resample, [resamples]."""
    return np.asarray(np.mean([KINDS[kind](counts @ items) for items in runs], axis=0))


def compare(kind: str, other: Sequence[Array], reference: Sequence[Array], counts: Array) -> Comparison | None:
    """Paired comparison of two methods by the items of their runs; None when there is nothing to compare."""
    observed = [float(np.mean([KINDS[kind](x.sum(0)) for x in runs])) for runs in (other, reference)]
    drawn = resampled(kind, other, counts) - resampled(kind, reference, counts)
    return judge(observed[0] - observed[1], drawn, counts.shape[1])


def judge(difference: float, drawn: Array, items: int) -> Comparison | None:
    """Interval and p of a difference from its resamples; those without a value (no item with weight) are left out.

    p = 2 min(P(d <= 0), P(d >= 0)), each with one added to count and total (Davison & Hinkley 1997, section 4.2), at
    most 1 and at least 2^(1 - items): no paired test by changes of sign gives less with so few items (Fisher 1935),
    while the bootstrap takes four items that agree for certainty.
    """
    finite = drawn[np.isfinite(drawn)]
    if not math.isfinite(difference) or not len(finite):
        return None
    below, above = int((finite <= 0).sum()), int((finite >= 0).sum())
    low, high = np.percentile(finite, [2.5, 97.5])
    p = min(1.0, max(2.0 * (min(below, above) + 1) / (len(finite) + 1), 2.0 ** (1 - items)))
    return Comparison(difference, (float(low), float(high)), p, drawn, items)


def average(parts: Sequence[Comparison]) -> Comparison | None:
    """Comparison of the mean of several measures; their items are different ones, so they were drawn independently."""
    drawn = np.mean([c.drawn for c in parts], axis=0)
    return judge(math.fsum(c.difference for c in parts) / len(parts), drawn, sum(c.items for c in parts))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given: the family-wise error stays under the level."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    out = [0.0] * len(p_values)
    worst = 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        out[i] = worst
    return out


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); None for the spread of a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
