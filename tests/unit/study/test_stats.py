"""Bootstrap and Holm: against exact or published values, and where they must be blind or certain."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from sdrrl_nemo.study.stats import average, compare, holm, judge, mean_and_spread, resample_counts


def items(values: list[float]) -> np.ndarray:
    return np.asarray([[v, 1.0] for v in values])


def test_every_resample_has_as_many_items_and_the_same_for_all_methods():
    counts = resample_counts(1, "m", 7, 50)
    assert counts.shape == (50, 7) and (counts.sum(1) == 7).all()
    assert (counts == resample_counts(1, "m", 7, 50)).all()
    assert not (counts == resample_counts(1, "other", 7, 50)).all()


def test_p_and_interval_are_those_of_the_normal_distribution_for_many_items():
    rng = np.random.default_rng(0)
    reference = rng.normal(0, 1, 400)
    other = reference + rng.normal(0.08, 1, 400)
    found = compare("mean", [items(list(other))], [items(list(reference))], resample_counts(0, "m", 400, 20000))
    d = other - reference
    error = d.std() / math.sqrt(len(d))
    assert found.difference == pytest.approx(d.mean())
    assert found.p == pytest.approx(2 * norm.sf(abs(d.mean()) / error), abs=0.02)
    assert found.interval == pytest.approx((d.mean() - 1.96 * error, d.mean() + 1.96 * error), abs=0.02)


def test_pairing_sees_a_small_difference_between_hard_and_easy_items():
    easy_and_hard = [float(i % 2) * 100 for i in range(20)]
    better = [v + 1 + 0.01 * i for i, v in enumerate(easy_and_hard)]
    found = compare("mean", [items(better)], [items(easy_and_hard)], resample_counts(0, "m", 20, 2000))
    assert found.interval[0] > 0.9 and found.p == pytest.approx(2 / 2001)


def test_equal_methods_are_never_told_apart():
    same = items([1.0, 0.0, 1.0])
    found = compare("mean", [same, same], [same, same], resample_counts(0, "m", 3, 500))
    assert (found.difference, found.p, found.interval) == (0.0, 1.0, (0.0, 0.0))


def test_seeds_are_averaged():
    found = compare("mean", [items([1, 1]), items([3, 3])], [items([0, 0])], resample_counts(0, "m", 2, 200))
    assert found.difference == 2.0


def test_a_difference_that_no_resample_can_tell_is_left_out():
    empty = np.zeros((3, 2))  # no item with weight
    assert compare("mean", [empty], [items([1, 2, 3])], resample_counts(0, "m", 3, 200)) is None


@pytest.mark.parametrize(
    ("difference", "drawn"), [(math.nan, [0.1, 0.2]), (math.inf, [0.1]), (0.5, [math.nan, math.inf]), (0.5, [])]
)
def test_what_is_not_a_number_has_no_p_value(difference, drawn):
    assert judge(difference, np.asarray(drawn), 5) is None


def test_resamples_without_a_value_are_left_out():
    assert judge(1.0, np.asarray([1.0, math.nan, 2.0]), 5).p == judge(1.0, np.asarray([1.0, 2.0]), 5).p


def test_the_mean_of_measures_is_drawn_independently():
    parts = [judge(1.0, np.array([0.0, 2.0]), 5), judge(3.0, np.array([2.0, 4.0]), 3)]
    found = average(parts)
    assert found.difference == 2.0
    assert found.drawn.tolist() == [1.0, 3.0]
    assert found.items == 8


def test_few_items_are_never_certain():
    """scipy's exact sign test gives the smallest p that ``n`` items which all agree allow."""
    for n in (1, 4, 9):
        better = [1.0 + 0.1 * i for i in range(n)]
        found = compare("mean", [items(better)], [items([0.0] * n)], resample_counts(0, "m", n, 5000))
        assert found.p == pytest.approx(binomtest(n, n).pvalue)


def test_holm_as_in_a_worked_example():
    # Holm 1979's procedure on p = .01, .04, .03, .005: 4 x .005, 3 x .01, 2 x .03, then .06 carried on.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_spread_needs_two_values():
    assert mean_and_spread([2.0]) == (2.0, None)
    assert mean_and_spread([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
