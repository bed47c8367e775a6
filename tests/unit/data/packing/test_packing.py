"""Packing: every sample once, none over length, close to the bound."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_nemo.data.packing.best_fit import FULL, best_fit_decreasing, pack_stream, pack_windows


@settings(max_examples=150, deadline=None)
@given(
    capacity=st.integers(1, 80),
    shares=st.lists(st.floats(0.001, 1.0), max_size=120),
    buffer=st.integers(1, 150),
)
def test_every_sample_once_and_no_pack_over_length(capacity: int, shares: list[float], buffer: int) -> None:
    lengths = [max(1, int(s * capacity)) for s in shares]
    packs = list(pack_stream(lengths, capacity, buffer))
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in pack) <= capacity for pack in packs)
    assert packs == list(pack_stream(iter(lengths), capacity, buffer))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=60))
def test_equals_plain_best_fit_decreasing(lengths: list[int]) -> None:
    """The bit-set search finds the same number of packs, equally full, as a linear search for the fullest fit."""
    rooms: list[int] = []
    for n in sorted(lengths, reverse=True):
        fitting = [i for i, room in enumerate(rooms) if room >= n]
        if fitting:
            rooms[min(fitting, key=lambda i: rooms[i])] -= n
        else:
            rooms.append(50 - n)
    packs = best_fit_decreasing(lengths, 50)
    assert sorted(50 - sum(lengths[i] for i in pack) for pack in packs) == sorted(rooms)


def test_efficiency_on_lengths_like_the_demo() -> None:
    rng = random.Random(0)
    lengths = [min(512, max(20, int(rng.lognormvariate(4.6, 0.5)))) for _ in range(4000)]
    packs = list(pack_stream(lengths, 512, 100_000))
    assert sum(lengths) / (512 * len(packs)) > 0.99
    small = list(pack_stream(lengths, 512, 200))
    assert sum(lengths) / (512 * len(small)) > 0.97


class Counted:
    """Lengths that count how many of them were taken."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths, self.taken = lengths, 0

    def __iter__(self) -> Iterator[int]:
        for n in self.lengths:
            self.taken += 1
            yield n


@settings(max_examples=60, deadline=None)
@given(
    shares=st.lists(st.sampled_from([0.05, 0.3, 0.6, 0.97, 1.0]), min_size=1, max_size=150),
    buffer=st.integers(1, 40),
)
def test_no_more_samples_are_held_than_the_buffer_and_half_of_it_is_opened_again(
    shares: list[float], buffer: int
) -> None:
    lengths = Counted([max(1, int(100 * s)) for s in shares])
    given_back = looks = 0
    for window in pack_windows(lengths, 100, buffer):
        looks += 1
        assert lengths.taken - given_back <= buffer
        given_back += sum(map(len, window))
        assert lengths.taken - given_back <= buffer // 2
    assert given_back == len(shares)
    assert looks <= len(shares) // (buffer - buffer // 2) + 1


def test_full_packs_are_final_and_the_emptiest_are_opened_again() -> None:
    """Buffers of 4: 99 of 100 is full by its share and final; of 60, 60 and 98 the two emptiest are opened again."""
    assert FULL == 0.99
    assert list(pack_windows([99, 60, 98, 60, 39, 40, 2], 100, 4)) == [[[0], [2]], [[1, 5], [3, 4]], [[6]]]


@pytest.mark.parametrize("lengths", [[3, 9], [0, 4], [2, -1]])
def test_length_out_of_range(lengths: list[int]) -> None:
    bad = next(i for i, n in enumerate(lengths) if not 1 <= n <= 8)
    with pytest.raises(ValueError, match=rf"sample {bad} has length {lengths[bad]}, outside 1\.\.8"):
        best_fit_decreasing(lengths, 8)


def test_lengths_of_one_and_of_the_whole_pack_are_in_range() -> None:
    assert sorted(best_fit_decreasing([1, 8, 7], 8)) == [[0, 2], [1]]
    assert best_fit_decreasing([], 8) == []
