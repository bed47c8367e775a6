"""A text and its translation as pairs of segments that say the same, and one score from theirs.

Estimators are made for sentences: CometKiwi cuts away what is beyond the 512 subwords of its encoder, and a cosine of
whole answers sees no wrong sentence. So a text is judged sentence by sentence. Where both sides have as many lines, or
paragraphs, these correspond; within one, sentences do, and where their numbers differ the neighbours are joined whose
lengths fit (after Gale & Church 1993). Nothing is left out, except code and the like that both sides share.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import regex

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.engines.base import Assessment, Languages
from sdrrl_nemo.data.text.segmentation import protected_spans, split_sentences
from sdrrl_nemo.data.text.segmentation.invisible import visible

AGGREGATES = ("mean", "min")
Segments = tuple[str, str]
"""(segment of the source, segment of the translation)."""

_LETTER = regex.compile(r"\p{L}")
_PARAGRAPH = regex.compile(r"\n[ \t]*\n\s*")
_CLAUSE = regex.compile(r"[,;:.!?…](?=\s)\K\s*|[、，；：。！？।៖](?=\S)\K")
_SPACE = regex.compile(r"\s+\K")
_LEAST_CHARACTERS = 4
"""Of both sides together; shorter pairs are not halved, whatever the encoder makes of them."""
_MOST_CELLS = 40_000
"""Sentences times sentences that are still aligned; larger blocks stay whole."""


def require_aggregate(name: str, aggregate: str) -> None:
    """SdrrlError unless the aggregate is one of `AGGREGATES`; ``name`` is the engine's."""
    if aggregate not in AGGREGATES:
        known = suggest(aggregate, AGGREGATES) or f"; give {' or '.join(AGGREGATES)}"
        raise SdrrlError(f"quality estimator '{name}': aggregate '{aggregate}' is unknown{known}")


def segment_pairs(source: str, translation: str, languages: Languages) -> list[Segments]:
    """Corresponding segments in order; those without a letter outside code only where there are no others."""
    pairs = list(_blocks(*_without_shared_blocks(visible(source), visible(translation)), languages))
    return [pair for pair in pairs if _has_words(pair[0]) or _has_words(pair[1])] or pairs


def assessment(pairs: Sequence[Segments], scores: Sequence[float], aggregate: str) -> Assessment:
    """Mean of the segments' scores, weighted by the length of the source, their minimum, and the one that counts."""
    weights = [len(source) for source, _ in pairs]
    if not sum(weights):
        weights = [1] * len(pairs)
    mean = sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)
    return Assessment(mean if aggregate == "mean" else min(scores), mean, min(scores), len(pairs))


def fitting(pairs: Sequence[Segments], too_long: Callable[[Sequence[Segments]], Sequence[bool]]) -> list[Segments]:
    """The pairs, those that are too long halved until none is; both sides are halved, so that the parts correspond."""
    out = list(pairs)
    while True:
        parts = [
            [*_halved(pair)] if long and len("".join(pair)) >= _LEAST_CHARACTERS else [pair]
            for pair, long in zip(out, too_long(out), strict=True)
        ]
        if len(parts) == sum(map(len, parts)):
            return out
        out = [piece for pieces in parts for piece in pieces]


def _halved(pair: Segments) -> Iterator[Segments]:
    cuts = [_middle(text) for text in pair]
    yield pair[0][: cuts[0]].strip(), pair[1][: cuts[1]].strip()
    yield pair[0][cuts[0] :].strip(), pair[1][cuts[1] :].strip()


def _middle(text: str) -> int:
    """Where to cut a text in two: at a clause near its middle, else at a space, else between two characters."""
    half = len(text) / 2
    for pattern in (_CLAUSE, _SPACE):
        near = [m.end() for m in pattern.finditer(text) if half / 2 <= m.end() <= 1.5 * half]
        if near:
            return min(near, key=lambda cut: abs(cut - half))
    return math.ceil(half)


def _without_shared_blocks(source: str, translation: str) -> tuple[str, str]:
    """Both texts without the code, formulas and JSON over several lines that stand in both."""
    texts = (source, translation)
    blocks = [[(a, b) for a, b in protected_spans(text) if "\n" in text[a:b].strip()] for text in texts]
    ours, theirs = (Counter(t[a:b].strip() for a, b in own) for t, own in zip(texts, blocks, strict=True))
    shared = ours & theirs
    out = []
    for text, own in zip(texts, blocks, strict=True):
        left, kept, at = shared.copy(), "", 0
        for start, end in own:
            if left[text[start:end].strip()]:
                left[text[start:end].strip()] -= 1
                kept, at = f"{kept}{text[at:start]}\n", end
        out.append(kept + text[at:])
    return out[0], out[1]


def _has_words(text: str) -> bool:
    if not _LETTER.search(text):
        return False
    at = 0
    for start, end in [*protected_spans(text), (len(text), len(text))]:
        if _LETTER.search(text[at:start]):
            return True
        at = end
    return False


def _blocks(source: str, translation: str, languages: Languages) -> Iterator[Segments]:
    """Segments of lines where both texts have as many, else of paragraphs, else of the whole texts."""
    for cut in (str.splitlines, _PARAGRAPH.split):
        ours, theirs = ([part.strip() for part in cut(text) if part.strip()] for text in (source, translation))
        if len(ours) == len(theirs) > 1:
            for a, b in zip(ours, theirs, strict=True):
                yield from _blocks(a, b, languages) if "\n" in a or "\n" in b else _aligned(a, b, languages)
            return
    yield from _aligned(source.strip(), translation.strip(), languages)


def _aligned(source: str, translation: str, languages: Languages) -> Iterator[Segments]:
    """Sentences that correspond; a sentence without its like is joined with a neighbour."""
    ours, theirs = (_sentences(t, code) for t, code in zip((source, translation), languages, strict=True))
    if not ours or not theirs or len(ours) * len(theirs) > _MOST_CELLS:
        beads = [(len(ours), len(theirs))]
    elif len(ours) == len(theirs):
        beads = [(1, 1)] * len(ours)
    else:
        beads = _beads([len(s) for s in ours], [len(s) for s in theirs])
    i = j = 0
    for m, n in beads:
        yield "".join(ours[i : i + m]).strip(), "".join(theirs[j : j + n]).strip()
        i, j = i + m, j + n


def _sentences(text: str, code: str) -> list[str]:
    """Sentences of all lines; they concatenate to the text."""
    return [sentence for line in text.splitlines(keepends=True) for sentence in split_sentences(line, code)]


def _beads(ours: Sequence[int], theirs: Sequence[int]) -> list[tuple[int, int]]:
    """How many sentences of each side belong together, from their lengths, by dynamic programming.

    One of a side goes with one or more of the other, or two with two; what costs least deviates least from the ratio of
    all lengths.
    """
    ratio = sum(theirs) / max(sum(ours), 1)
    most = max(4, 2 + len(ours) // len(theirs), 2 + len(theirs) // len(ours))
    kinds = [(1, 1), (2, 2), *((1, n) for n in range(2, most + 1)), *((n, 1) for n in range(2, most + 1))]
    best: dict[tuple[int, int], tuple[float, tuple[int, int]]] = {(0, 0): (0.0, (0, 0))}
    for i in range(len(ours) + 1):
        for j in range(len(theirs) + 1):
            for m, n in kinds:
                before = best.get((i - m, j - n))
                if before is None:
                    continue
                a, b = sum(ours[i - m : i]) * ratio, sum(theirs[j - n : j])
                cost = before[0] + abs(a - b) / math.sqrt(a + b + 1) + 0.5 * (m + n - 2)
                if (i, j) not in best or cost < best[i, j][0]:
                    best[i, j] = (cost, (m, n))
    at, beads = (len(ours), len(theirs)), []
    while at != (0, 0):
        if at not in best:  # no way to pair them: all together
            return [(len(ours), len(theirs))]
        beads.append(best[at][1])
        at = (at[0] - beads[-1][0], at[1] - beads[-1][1])
    return beads[::-1]
