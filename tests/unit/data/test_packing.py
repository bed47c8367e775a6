"""Packing: every sample once, none over length, close to the bound."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_nemo.data.packing import best_fit_decreasing, pack_stream


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


def test_length_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"outside 1\.\.8"):
        best_fit_decreasing([3, 9], 8)
