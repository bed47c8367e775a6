"""When an answer that goes round in circles is given up, whichever engine writes it."""

from __future__ import annotations

from collections.abc import Sequence

from sdrrl_nemo.common.errors import SdrrlError

LONGEST_LOOP, SHORTEST_END, EVERY = 160, 48, 8
"""Tokens of the longest passage whose repetition is seen, tokens that repeat at least, tokens between two looks."""


def check_stop_loops(where: str, times: int) -> int:
    """``times`` as it is, or SdrrlError.

    A model that has begun to repeat itself word for word seldom ends: an answer whose last passage stands there
    ``times`` times in a row is given up, and counts as unfinished. 0: never.
    """
    if times < 0 or times == 1:
        raise SdrrlError(f"{where}: stop_loops is {times}; 0 (never) or a number from 2 on is needed")
    return times


def looks_like_a_loop(ids: Sequence[int], times: int) -> bool:
    """Asked after every token: whether it is time to look, and ``ids`` repeat themselves."""
    return len(ids) % EVERY == 0 and repeats_itself(ids, times)


def repeats_itself(ids: Sequence[int], times: int) -> bool:
    """Whether ``ids`` end with one passage ``times`` times in a row, together at least `SHORTEST_END` ids."""
    for length in range(1, LONGEST_LOOP + 1):
        whole = max(times, -(-SHORTEST_END // length)) * length
        if whole > len(ids):
            continue
        if ids[-whole:-length] == ids[-whole + length :]:
            return True
    return False
