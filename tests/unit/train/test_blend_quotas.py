"""Draws and weights of blends: the draws are megatron-core's, and for any mixture the step losses average to Eq. 6."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets import helpers_cpp

from sdrrl_nemo.data.packing.packed import PackedSamples
from sdrrl_nemo.train.batches import Mixture, sample_weights
from sdrrl_nemo.train.blend.quotas import BlendSchedule, exhaustive, greedy

Floats = npt.NDArray[np.float64]
SHARES = st.lists(st.floats(0.01, 100), min_size=1, max_size=9)


def normalised(numbers: list[float]) -> tuple[float, ...]:
    return tuple(float(x) for x in np.asarray(numbers) / np.sum(numbers))


@settings(max_examples=150, deadline=None)
@given(SHARES, st.integers(1, 400))
def test_draws_are_those_of_megatron_core(numbers: list[float], size: int) -> None:
    shares = normalised(numbers)
    index, within = np.zeros(size, np.int16), np.zeros(size, np.int64)
    helpers_cpp.build_blending_indices(index, within, list(shares), len(shares), size, False)
    found = greedy(shares, size)
    assert found.tolist() == index.tolist()
    for number in range(len(shares)):  # megatron-core numbers the rows of a set as they come
        assert within[found == number].tolist() == list(range(np.count_nonzero(found == number)))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=9))
def test_every_row_once_is_megatron_cores_exhaustive_blend(sizes: list[int]) -> None:
    index, within = np.zeros(sum(sizes), np.int16), np.zeros(sum(sizes), np.int64)
    helpers_cpp.build_exhaustive_blending_indices(index, within, np.asarray(sizes, np.int64), len(sizes))
    assert exhaustive(sizes).tolist() == index.tolist()


class InMemory(PackedSamples):
    """Rows of one sample each, with made-up subsets, answer lengths, weights and losses."""

    def __init__(self, seed: int, sets: list[int], subsets: int, weighted: bool) -> None:
        rng = np.random.default_rng(seed)
        rows = sum(sets)
        self.subset_names = tuple(f"d{i}" for i in range(subsets))
        self.subset = rng.integers(0, subsets, rows)
        self.answer_tokens = rng.integers(1, 40, rows).astype(np.int32)
        self.sample_weight = rng.uniform(0.1, 5.0, rows) if weighted else None
        self.losses = rng.uniform(0.1, 12.0, rows)
        """l_CE of each sample, mean over its answer; every token has it."""


@dataclass(frozen=True)
class Case:
    """A run: ``steps`` steps of ``data`` in the order of ``schedule``."""

    schedule: BlendSchedule
    data: InMemory
    objective: Floats
    steps: int
    reduction: str
    normalise: str

    def weights(self) -> Floats:
        mixture = Mixture(self.objective, self.schedule.steps_a_draw(self.steps))
        s = self.schedule.steps_per_epoch
        return sample_weights(self.data, self.reduction, s, self.normalise, mixture)

    def step_loss(self, step: int, weights: Floats) -> float:
        """The plain sum over the tokens of a step."""
        rows = self.schedule.batch(step)
        rows = rows[rows >= 0]
        return float((weights[rows] * self.data.answer_tokens[rows] * self.data.losses[rows]).sum())

    def expected(self, first: int, last: int) -> float:
        """Sum of lambda_d times the weighted mean of subset d, over the samples that steps ``first`` to ``last`` have;
        sample by sample."""
        seen = {int(row) for step in range(first, last) for row in self.schedule.batch(step) if row >= 0}
        total = norm = 0.0
        for d, weight in enumerate(self.objective):
            own = [i for i in seen if self.data.subset[i] == d]
            if not own:
                continue
            norm += weight
            w = {i: 1.0 if self.data.sample_weight is None else self.data.sample_weight[i] for i in own}
            n = {i: int(self.data.answer_tokens[i]) for i in own}
            per_sample = {i: self.data.losses[i] * (1 if self.reduction == "mean" else n[i]) for i in own}
            below = sum(w[i] * (n[i] if self.reduction == "token" else 1) for i in own)
            total += weight * sum(w[i] * per_sample[i] for i in own) / below
        return total / (norm if self.normalise == "mean" else 1.0)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sets = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    numbers = draw(st.lists(st.floats(0.2, 5), min_size=len(sets), max_size=len(sets)))
    by_share = draw(st.booleans())
    size = draw(st.integers(len(sets), 40)) if by_share else sum(sets)
    shares = normalised(numbers) if by_share else ()
    schedule = BlendSchedule(size, draw(st.integers(1, 9)), draw(st.integers(0, 99)), tuple(sets), shares)
    subsets = draw(st.integers(1, 4))
    objective = np.asarray(draw(st.lists(st.floats(0.1, 4), min_size=subsets, max_size=subsets)))
    data = InMemory(draw(st.integers(0, 99)), sets, subsets, draw(st.booleans()))
    reduction = draw(st.sampled_from(["mean", "sum", "token"]))
    steps = draw(st.integers(1, 4)) * schedule.steps_per_epoch
    return Case(schedule, data, objective, steps, reduction, draw(st.sampled_from(["sum", "mean"])))


@settings(max_examples=250, deadline=None)
@given(cases())
def test_the_steps_of_a_run_average_to_the_weighted_eq6_of_what_it_draws(case: Case) -> None:
    weights = case.weights()
    found = [case.step_loss(step, weights) for step in range(case.steps)]
    assert np.mean(found) == pytest.approx(case.expected(0, case.steps), rel=1e-11)
    if (case.schedule.quotas >= np.asarray(case.schedule.sets)).all():  # then every epoch by itself
        length = case.schedule.steps_per_epoch
        for first in range(0, case.steps, length):
            mean = np.mean(found[first : first + length])
            assert mean == pytest.approx(case.expected(first, first + length), rel=1e-11)


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(1, 60))
def test_counted_draws_are_the_draws(case: Case, steps: int) -> None:
    """What the weights take for the number of draws, against every row of every step; the run may end anywhere."""
    schedule, found = case.schedule, np.zeros(sum(case.schedule.sets), np.int64)
    for step in range(steps):
        rows = schedule.batch(step)
        np.add.at(found, rows[rows >= 0], 1)
    assert found.tolist() == schedule.draws(steps).tolist()
    a_draw, first = schedule.steps_a_draw(steps), 0
    for have, quota in zip(schedule.sets, schedule.quotas, strict=True):
        own = slice(first, first + have)
        if quota < have:  # by the whole run
            counted = np.divide(steps, found[own], out=np.zeros(have), where=found[own] > 0)
            np.testing.assert_allclose(a_draw[own], counted)
        elif steps % schedule.steps_per_epoch == 0:  # by the epoch, which a run of whole epochs repeats
            np.testing.assert_allclose(a_draw[own], steps / found[own])
        first += have


def test_an_epoch_draws_its_quotas_and_one_that_is_no_multiple_repeats_the_same_rows() -> None:
    schedule = BlendSchedule(rows=20, global_batch_size=4, seed=1, sets=(3, 30), shares=(0.5, 0.5))
    assert schedule.quotas.tolist() == [10, 10]
    epochs = [schedule.order(e) for e in range(6)]
    counts = [np.bincount(e, minlength=33) for e in epochs]
    assert all(c[:3].tolist() == counts[0][:3].tolist() for c in counts)
    assert sorted(counts[0][:3]) == [3, 3, 4]
    # the large set is gone through before anything of it comes again
    assert sum(c[3:] for c in counts[:3]).tolist() == [1] * 30
    assert sum(c[3:] for c in counts).tolist() == [2] * 30
    assert [e.tolist() for e in epochs] != [epochs[0].tolist()] * 6


@pytest.mark.parametrize(("proportional", "rows"), [(True, 45), (False, 24)])
def test_a_step_has_its_share_of_every_set(proportional: bool, rows: int) -> None:
    sets = (27, 12, 6)
    shares = () if proportional else (1 / 3, 1 / 3, 1 / 3)
    schedule = BlendSchedule(rows, 9, 7, sets, shares)
    bounds = np.cumsum((0, *sets))
    wanted = np.asarray(sets) / 45 * 9 if proportional else np.full(3, 3.0)
    for step in range(schedule.steps_per_epoch - 1):
        of = np.searchsorted(bounds, schedule.batch(step), "right") - 1
        assert (np.abs(np.bincount(of, minlength=3) - wanted) <= 1.0 + 1e-9).all()


def test_weights_of_samples_that_are_never_drawn_are_zero() -> None:
    data: Any = InMemory(3, [6], 2, weighted=False)
    a_draw = np.asarray([0.0, 2, 2, 2, 2, 0])
    weights = sample_weights(data, "mean", 2, "sum", Mixture(np.ones(2), a_draw))
    assert (weights[[0, 5]] == 0).all() and (weights[1:5] > 0).all()
    data.subset[:] = [1, 0, 0, 0, 0, 1]  # nothing of subset 1 is drawn: no division by 0
    for reduction in ("mean", "sum", "token"):
        assert np.isfinite(sample_weights(data, reduction, 2, "mean", Mixture(np.ones(2), a_draw))).all()


def test_the_worked_example_of_the_documentation() -> None:
    """docs/training.md: sets of 600, 300 and 100 packs at temperature 3."""
    sets = (600, 300, 100)
    schedule = BlendSchedule(1000, 100, 5, sets, normalised([n ** (1 / 3) for n in sets]))
    assert schedule.quotas.tolist() == [426, 339, 235]
    draws = schedule.draws(schedule.steps_per_epoch)
    assert np.bincount(draws[900:]).tolist() == [0, 0, 65, 35]
    assert np.bincount(draws[:600]).tolist() == [174, 426]
    assert np.bincount(schedule.draws(30)[:600]).tolist() == [0, 0, 522, 78]
    data: Any = InMemory(1, [1000], 1, weighted=False)
    data.subset_names, data.subset = ("large", "small"), np.asarray([0] * 800 + [1] * 200)
    data.answer_tokens[:] = 10
    weights = sample_weights(data, "mean", 10, "sum", Mixture(np.ones(2), schedule.steps_a_draw(30)))
    assert set(np.round(weights[900:][draws[900:] == 2], 12)) == {0.0025}
    assert sample_weights(data, "mean", 10)[999] == 0.005
