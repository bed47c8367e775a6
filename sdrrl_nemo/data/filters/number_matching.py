"""Whether a translation states the numbers of its source, however each language writes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair
from sdrrl_nemo.data.filters.number_reading import Number, stated
from sdrrl_nemo.data.filters.spelled_numbers import in_words


@FILTERS.register("numbers")
class Numbers(Filter):
    """Numbers of the source that the translation lost, and numbers it made up.

    Numbers in digits must agree. What the other side writes in words (up to twelve), in Roman or kanji numerals or as
    the name of a month may stand for a digit, but is never asked for: "one" and "um" say more than 1.
    """

    version = 4

    def __init__(self, max_missing: int = 0, max_extra: int = 1) -> None:
        self.max_missing, self.max_extra = max_missing, max_extra

    def reject(self, pair: TextPair) -> str | None:
        missing, extra = differences(pair)
        if len(missing) <= self.max_missing and len(extra) <= self.max_extra:
            return None
        lost, added = sorted(n.text for n in missing)[:5], sorted(n.text for n in extra)[:5]
        return f"{len(missing)} numbers lost {lost}, {len(extra)} added {added}"


def differences(pair: TextPair) -> tuple[list[Number], list[Number]]:
    """(numbers of the source that the translation lacks, numbers that it alone has)."""
    missing, extra = stated(pair.source_rest, pair.source_language), stated(pair.target_rest, pair.target_language)
    missing, extra = _unmatched(missing, extra, _as_written)
    missing, extra = _unmatched(missing, extra, _values)
    if not missing and not extra:
        return [], []
    their_words = in_words(pair.target_rest, pair.target_language)
    our_words = in_words(pair.source_rest, pair.source_language)
    missing, their_words = _unmatched(missing, their_words, _values, whole=True)
    extra, our_words = _unmatched(extra, our_words, _values, whole=True)
    turned = _turned(missing, extra)
    missing, extra = ([n for n in left if n not in wrong] for left, wrong in zip((missing, extra), turned, strict=True))
    missing, extra = _unmatched(_parts(missing), _parts(extra), _values)
    missing, _ = _unmatched([n for n in missing if n.needed], their_words, _values)
    extra, _ = _unmatched([n for n in extra if n.needed], our_words, _values)
    return missing + turned[0], extra + turned[1]


def _turned(ours: Sequence[Number], theirs: Sequence[Number]) -> tuple[list[Number], list[Number]]:
    """Fractions of ours that the others have upside down (3/4, 4/3), and those; 25/12 and 12/25 may be one date."""
    texts = {number.text: number for number in theirs}
    pairs = []
    for number in ours:
        above, slash, below = number.text.partition("/")
        other = texts.get(f"{below}/{above}")
        if slash and other and above != below and len(number.parts) == 2 and max(len(above), len(below)) == 1:
            pairs.append((number, other))
    return [a for a, _ in pairs], [b for _, b in pairs]


def _as_written(number: Number) -> list[Hashable]:
    """ "1.234" stays as it is now and then, whatever it means in the other language; plain digits and hours mean one
    thing."""
    return [] if number.text.isdigit() or ":" in number.text else [number.text]


def _values(number: Number) -> list[Hashable]:
    return sorted(number.values, key=str)


def _parts(numbers: Iterable[Number]) -> list[Number]:
    """The numbers with those that hold several taken apart."""
    return [part for number in numbers for part in (_parts(number.parts) if number.parts else [number])]


def _unmatched(
    ours: Sequence[Number],
    theirs: Sequence[Number],
    keys: Callable[[Number], Iterable[Hashable]],
    whole: bool = False,
) -> tuple[list[Number], list[Number]]:
    """What is left of both after numbers with a key in common are paired off, those that mean one thing alone first.

    ``whole``: only those of ours that hold several numbers, before they are taken apart.
    """
    free: dict[Hashable, list[int]] = defaultdict(list)
    for j in sorted(range(len(theirs)), key=lambda j: -len(theirs[j].values)):
        for key in keys(theirs[j]):
            free[key].append(j)
    paired, taken = set(), set()
    for i in sorted(range(len(ours)), key=lambda i: len(ours[i].values)):
        for key in keys(ours[i]) if ours[i].parts or not whole else ():
            while free[key] and free[key][-1] in taken:
                free[key].pop()
            if free[key]:
                taken.add(free[key].pop())
                paired.add(i)
                break
    return [n for i, n in enumerate(ours) if i not in paired], [n for j, n in enumerate(theirs) if j not in taken]
