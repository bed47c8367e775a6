"""Best-fit-decreasing packing: the longest sample first, each into the fullest pack that still takes it.

The samples come as a stream, so the packer looks at a buffer of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise

import numpy as np
import numpy.typing as npt

FULL = 0.99
"""A pack filled to this share is final; emptier ones are opened again for the next buffer."""

Ints = npt.NDArray[np.int64]


def best_fit_decreasing(lengths: Sequence[int] | Ints, capacity: int) -> list[list[int]]:
    """Pack all samples at once; returns the packs as lists of positions in ``lengths``.

    Raises ValueError for a length outside 1..capacity.
    """
    numbers = np.asarray(lengths, np.int64)
    pack_of, count = assign(numbers, capacity)
    return _split(np.arange(len(numbers)), pack_of, count)


def assign(lengths: Ints, capacity: int) -> tuple[Ints, int]:
    """Give each sample a pack; returns the pack numbers, int64 [n], and how many packs there are.

    This is best fit decreasing, but for all samples of one length at a time, which makes it fast enough for millions.
    The fullest pack that takes length n has the least room r >= n. It takes floor(r / n) samples of that length before
    any other pack is the fullest, and so does every pack with the same room: whole groups of packs are filled by array
    operations. The set bits of one integer are the rooms that some pack has.
    """
    order = np.argsort(-lengths, kind="stable")  # stable: samples of one length keep their order on every machine
    ordered = lengths[order]
    outside = (lengths < 1) | (lengths > capacity)
    if outside.any():
        i = int(np.argmax(outside))
        raise ValueError(f"sample {i} has length {int(lengths[i])}, outside 1..{capacity}")
    edges = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(ordered)]
    sizes = ordered[edges[:-1]].tolist() if len(ordered) else []
    packed = np.empty(len(ordered), np.int64)  # pack of ordered[i]
    open_packs: list[list[Ints]] = [[] for _ in range(capacity + 1)]  # open_packs[r]: packs with room r, in groups
    free = count = 0
    for n, (first, end) in zip(sizes, pairwise(edges), strict=False):
        begin = first
        while begin < end:
            # Shifting drops the packs with less room than n; the lowest bit that is left is the fullest pack that fits.
            fitting = free >> n
            room = n + (fitting & -fitting).bit_length() - 1 if fitting else capacity
            each = room // n
            wanted = -(-(end - begin) // each)
            if fitting:
                group = open_packs[room].pop()
                if len(group) > wanted:
                    open_packs[room].append(group[wanted:])
                    group = group[:wanted]
                if not open_packs[room]:
                    free ^= 1 << room
            else:
                group = np.arange(count, count + wanted)
                count += wanted
            taken = min(end - begin, len(group) * each)
            packed[begin : begin + taken] = group[0] if len(group) == 1 else np.repeat(group, each)[:taken]
            # Every pack of the group got ``each`` samples but perhaps the last, which got the rest.
            whole, rest = divmod(taken, each)
            for packs, left in ((group[:whole], room - each * n), (group[whole:], room - rest * n)):
                if len(packs) and left:
                    open_packs[left].append(packs)
                    free |= 1 << left
            begin += taken
    pack_of = np.empty(len(lengths), np.int64)
    pack_of[order] = packed
    return pack_of, count


def pack_windows(lengths: Iterable[int], capacity: int, buffer: int) -> Iterator[list[list[int]]]:
    """Packs of positions in ``lengths``, looking at no more than ``buffer`` samples at a time; a list for each look.

    Packs that are not full when a buffer ends are opened again and packed with the next one (at most half a buffer of
    samples, the emptiest packs first), so that the end of a buffer costs nothing.
    """
    source = iter(lengths)
    positions, sizes = np.empty(0, np.int64), np.empty(0, np.int64)
    begin = 0
    while True:
        room = max(1, buffer - len(positions))
        fresh = np.fromiter(islice(source, room), np.int64)
        positions = np.concatenate([positions, np.arange(begin, begin + len(fresh))])
        sizes = np.concatenate([sizes, fresh])
        begin += len(fresh)
        # What is reopened was placed well within its own buffer only, so old and new samples are packed together anew.
        pack_of, count = assign(sizes, capacity)
        if len(fresh) < room:
            if count:
                yield _split(positions, pack_of, count)
            return
        again = _reopened(sizes, pack_of, count, capacity, buffer // 2)
        packs = _split(positions, pack_of, count)
        yield [packs[i] for i in np.flatnonzero(~again)]
        held = again[pack_of]
        positions, sizes = positions[held], sizes[held]


def pack_stream(lengths: Iterable[int], capacity: int, buffer: int) -> Iterator[list[int]]:
    """The packs of ``pack_windows``, one after the other."""
    for window in pack_windows(lengths, capacity, buffer):
        yield from window


def _reopened(sizes: Ints, pack_of: Ints, count: int, capacity: int, budget: int) -> npt.NDArray[np.bool_]:
    """Which packs go into the next buffer: the emptiest, below FULL, of ``budget`` samples together."""
    fill = np.bincount(pack_of, sizes, count)
    samples = np.bincount(pack_of, minlength=count)
    emptiest = np.argsort(fill, kind="stable")
    fitting = (fill[emptiest] < FULL * capacity) & (np.cumsum(samples[emptiest]) <= budget)
    again = np.zeros(count, bool)
    again[emptiest[: int(np.argmin(fitting)) if not fitting.all() else count]] = True
    return again


def _split(positions: Ints, pack_of: Ints, count: int) -> list[list[int]]:
    """Positions of each pack, ascending."""
    order = np.argsort(pack_of, kind="stable")
    edges = [0, *np.cumsum(np.bincount(pack_of, minlength=count)).tolist()]
    grouped = positions[order].tolist()
    return [grouped[a:b] for a, b in pairwise(edges)]
