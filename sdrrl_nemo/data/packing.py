"""Best-fit-decreasing packing of samples within a bounded buffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

FULL = 0.99
"""A pack filled to this share is final; emptier ones are opened again for the next buffer."""


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs as lists of positions in ``lengths``: longest sample first, each into the fullest pack that still takes it.

    The set bits of one integer are the free sizes that some open pack has, so the best pack is the lowest set bit at or
    above the length: O(n * capacity / 64) machine words at worst. Ties go to the earlier position. Raises ValueError
    for a length outside 1..capacity.
    """
    packs: list[list[int]] = []
    open_packs: list[list[int]] = [[] for _ in range(capacity + 1)]  # open_packs[f]: packs with f tokens free
    free = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        n = lengths[i]
        if not 1 <= n <= capacity:
            raise ValueError(f"sample {i} has length {n}, outside 1..{capacity}")
        fitting = free >> n
        if fitting:
            room = n + (fitting & -fitting).bit_length() - 1
            pack = open_packs[room].pop()
            if not open_packs[room]:
                free &= ~(1 << room)
            packs[pack].append(i)
        else:
            room, pack = capacity, len(packs)
            packs.append([i])
        if room > n:
            open_packs[room - n].append(pack)
            free |= 1 << (room - n)
    return packs


def pack_stream(lengths: Iterable[int], capacity: int, buffer: int) -> Iterator[list[int]]:
    """Packs of positions in ``lengths``, looking at no more than ``buffer`` samples at a time.

    Packs that are not full when a buffer ends are opened again and packed with the next one (at most half a buffer of
    samples, the emptiest packs first), so that the end of a buffer costs nothing.
    """
    source = enumerate(lengths)
    held: list[tuple[int, int]] = []
    while True:
        room = max(1, buffer - len(held))
        fresh = list(islice(source, room))
        held += fresh
        packs = best_fit_decreasing([n for _, n in held], capacity)
        if len(fresh) < room:
            yield from ([held[i][0] for i in pack] for pack in packs)
            return
        fill = [sum(held[i][1] for i in pack) for pack in packs]
        reopened: set[int] = set()
        budget = buffer // 2
        for p in sorted(range(len(packs)), key=lambda p: (fill[p], p)):
            if fill[p] >= FULL * capacity or len(packs[p]) > budget:
                break
            budget -= len(packs[p])
            reopened.add(p)
        yield from ([held[i][0] for i in pack] for p, pack in enumerate(packs) if p not in reopened)
        held = sorted(held[i] for p in reopened for i in packs[p])
