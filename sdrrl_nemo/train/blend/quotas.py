"""How often each set of a blend is drawn, as megatron-core's ``BlendedDataset`` has it, and in which order.

Nothing is random in how many rows of a set an epoch has: at every place the set that is furthest behind its share is
next (``build_blending_indices`` of ``megatron/core/datasets/helpers.cpp``, megatron-core 0.15.3). Which row of the set
it is follows from the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sdrrl_nemo.common.seeding import named_generator
from sdrrl_nemo.train.batches import Schedule

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def greedy(shares: Sequence[float], size: int) -> npt.NDArray[np.int16]:
    """Set of each of ``size`` places, int16 [size]: the one whose count is furthest behind ``shares`` (sum 1)."""
    return _furthest_behind(np.asarray(shares, np.float64), size, None)


def exhaustive(sizes: Sequence[int]) -> npt.NDArray[np.int16]:
    """The same until each set was drawn ``sizes`` times, int16 [sum of sizes]."""
    each = np.asarray(sizes, np.int64)
    return _furthest_behind(each / each.sum(), int(each.sum()), each)


def _furthest_behind(shares: Floats, size: int, most: Counts | None) -> npt.NDArray[np.int16]:
    """``most``: how often each set may be drawn at most, where there is a bound."""
    out = np.zeros(size, np.int16)
    if len(shares) == 1:
        return out
    counts, behind = np.zeros(len(shares)), np.empty(len(shares))
    for place in range(size):
        np.multiply(shares, max(place, 1), out=behind)
        np.subtract(behind, counts, out=behind)
        out[place] = chosen = behind.argmax()
        counts[chosen] += 1
        if most is not None and counts[chosen] == most[chosen]:
            counts[chosen] = np.inf  # spent: it is behind no other any more
    return out


@lru_cache(maxsize=8)
def _sources(sets: tuple[int, ...], shares: tuple[float, ...], size: int) -> npt.NDArray[np.int16]:
    return greedy(shares, size) if shares else exhaustive(sets)


@dataclass(frozen=True)
class BlendSchedule(Schedule):
    """Row numbers of every step of a blend; a row's number counts through all sets.

    ``rows``: rows of an epoch. ``sets``: rows that each set has. ``shares``: each set's share of an epoch's rows, sum
    1; empty: an epoch has every row of every set once.
    """

    sets: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def sources(self) -> npt.NDArray[np.int16]:
        """The set of each row of an epoch, the same in all epochs; int16 [rows]."""
        return _sources(self.sets, self.shares, self.rows)

    @property
    def quotas(self) -> Counts:
        """Rows of an epoch by set, int64 [sets]."""
        return np.bincount(self.sources, minlength=len(self.sets)).astype(np.int64)

    def order(self, epoch: int) -> Counts:
        """Row numbers of an epoch in their order, int64 [rows]."""
        return _order(self, epoch)

    def steps_a_draw(self, steps: int) -> npt.NDArray[np.float64]:
        """Steps that come on one draw of each row, float64 [rows of all sets]: a row that is drawn c times in n steps
        has n / c, one that is never drawn 0.

        Of a set whose rows all come in every epoch, the epoch is what is looked at: its rows come equally often in each
        one. Of another set it is the whole run of ``steps`` steps.
        """
        out = []
        for number, (have, quota) in enumerate(zip(self.sets, self.quotas, strict=True)):
            if quota >= have:
                draws, over = _in_epoch(self.seed, number, have, int(quota)), self.steps_per_epoch
            else:
                draws, over = _in_run(self.seed, number, have, self._drawn_until(steps, number)), steps
            out.append(np.divide(over, draws, out=np.zeros(have), where=draws > 0))
        return np.concatenate(out)

    def draws(self, steps: int) -> Counts:
        """How often each row is drawn in the first ``steps`` steps, int64 [rows of all sets]; counted step by step."""
        epochs, rest = divmod(steps, self.steps_per_epoch)
        found = np.zeros(sum(self.sets), np.int64)
        for epoch in range(epochs + (rest > 0)):
            part = self.order(epoch)
            np.add.at(found, part if epoch < epochs else part[: rest * self.global_batch_size], 1)
        return found

    def _drawn_until(self, steps: int, number: int) -> int:
        """Rows of set ``number`` in the first ``steps`` steps."""
        epochs, rest = divmod(steps, self.steps_per_epoch)
        begun = self.sources[: rest * self.global_batch_size]
        return int(epochs * self.quotas[number] + np.count_nonzero(begun == number))


@lru_cache(maxsize=2)
def _order(schedule: BlendSchedule, epoch: int) -> Counts:
    out = np.zeros(schedule.rows, np.int64)
    first = 0
    for number, (have, quota) in enumerate(zip(schedule.sets, schedule.quotas, strict=True)):
        mine = _rows_of_epoch(schedule.seed, number, have, int(quota), epoch)
        out[schedule.sources == number] = first + mine
        first += have
    return out


def _shuffled(seed: int, number: int, have: int, pass_number: int) -> Counts:
    """The rows of set ``number`` in the order of its ``pass_number``-th pass, int64 [have]."""
    return named_generator(seed, "order", number, pass_number).permutation(have)


def _repeated(seed: int, number: int, have: int, more: int) -> Counts:
    """The ``more`` rows of a set that an epoch has once more than the others: the same in every epoch, so that how
    often a row comes in an epoch is a constant."""
    return named_generator(seed, "repeated", number).permutation(have)[:more]


def _rows_of_epoch(seed: int, number: int, have: int, quota: int, epoch: int) -> Counts:
    """The rows that an epoch draws from one set, in their order, int64 [quota].

    A set that an epoch goes through at least once is passed over whole as often as possible. One that an epoch does not
    come through goes on in the next epoch where it stopped.
    """
    if quota >= have:
        passes, more = divmod(quota, have)
        each = [_shuffled(seed, number, have, epoch * (passes + 1) + i) for i in range(passes)]
        again = named_generator(seed, "order of repeated", number, epoch).permutation(
            _repeated(seed, number, have, more)
        )
        return np.concatenate([*each, again])
    if quota == 0:
        return np.zeros(0, np.int64)
    first = epoch * quota
    begun, ended = first // have, (first + quota - 1) // have
    line = np.concatenate([_shuffled(seed, number, have, i) for i in range(begun, ended + 1)])
    return line[first - begun * have :][:quota]


def _in_epoch(seed: int, number: int, have: int, quota: int) -> Counts:
    """How often an epoch draws each row of a set that it goes through at least once, int64 [have]."""
    passes, more = divmod(quota, have)
    out = np.full(have, passes, np.int64)
    out[_repeated(seed, number, have, more)] += 1
    return out


def _in_run(seed: int, number: int, have: int, drawn: int) -> Counts:
    """How often each row of a set is among the first ``drawn`` of its passes, int64 [have]."""
    passes, more = divmod(drawn, have)
    out = np.full(have, passes, np.int64)
    out[_shuffled(seed, number, have, passes)[:more]] += 1
    return out
