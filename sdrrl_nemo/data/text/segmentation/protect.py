"""A text as sentences to translate and everything else, which stays byte for byte."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import regex

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.segmentation.blocks import Line, layout
from sdrrl_nemo.data.text.segmentation.invisible import INVISIBLE, unneeded
from sdrrl_nemo.data.text.segmentation.placeholders import FORMS, Masked, around, mask
from sdrrl_nemo.data.text.segmentation.sentences import borders, line_breaks, split_long
from sdrrl_nemo.data.text.segmentation.spans import Span
from sdrrl_nemo.data.text.segmentation.wrapped import wraps

REVISION = 2
"""Changes whenever another part of a text is protected or its sentences end elsewhere: for fingerprints."""

_LETTER = regex.compile(r"\p{L}")
_LINE_ENDS = regex.compile(r"\s*[\r\n]\s*")
_BARE_PIPE = regex.compile(r"(?<!\\)(?:\\\\)*+\K\|")
_WRITTEN_APART = regex.compile(r"[\p{Latin}\p{Cyrillic}\p{Greek}\p{Hangul}\p{Nd}]\Z")
_WRITTEN_TOGETHER = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}。、！？」』）…ー]\Z")
_HYPHENATED = regex.compile(r"\p{L}[-‐]\Z")
_LEAD = regex.compile(rf"[\s{INVISIBLE}]*+")
_TAIL = regex.compile(rf"[\s{INVISIBLE}]*+\Z")
_BRACKETS = {"(": ")", "[": "]", "（": "）", "【": "】"}
_NO_SPACE_BETWEEN_SENTENCES = frozenset({"jpn"})
"""Thai and Khmer write words together but put a space between sentences."""


class Smooth(NamedTuple):
    """A sentence as one line without invisible characters; ``spans`` and ``breaks`` are offsets in it."""

    text: str
    spans: tuple[Span, ...]
    breaks: tuple[int, ...]


@dataclass(frozen=True)
class Sentence:
    """One thing to translate: [start, end) of the text; ``cell``: it is in a table.

    ``spans`` stay as they are; ``breaks`` are line breaks of wrapped prose. Both are offsets in the sentence's text.
    """

    start: int
    end: int
    text: str
    spans: tuple[Span, ...]
    cell: bool
    breaks: tuple[tuple[int, int], ...] = ()

    @functools.cached_property
    def smooth(self) -> Smooth:
        """What a translator gets to see."""
        hidden = [i for i in unneeded(self.text) if not any(s.start <= i < s.end for s in self.spans)]
        edits = [(a, b, self._joint(a, b)) for a, b in self.breaks]
        edits = sorted([*edits, *((i, i + 1, "") for i in hidden if not any(a <= i < b for a, b in self.breaks))])
        out, at = [], 0
        for start, end, put in edits:
            out += [self.text[at:start], put]
            at = end

        def moved(offset: int) -> int:
            return offset + sum(len(put) - (b - a) for a, b, put in edits if b <= offset)

        spans = tuple(Span(moved(s.start), moved(s.end), s.mark) for s in self.spans)
        return Smooth("".join(out) + self.text[at:], spans, tuple(moved(b) for _, b in self.breaks))

    def _joint(self, start: int, end: int) -> str:
        """A space in the place of a line break, but not between ideographs or behind a hyphen."""
        left, right = self.text[start - 1 : start], self.text[end : end + 1]
        written_together = _WRITTEN_TOGETHER.search(left) and _WRITTEN_TOGETHER.search(right)
        return "" if written_together or (_HYPHENATED.search(self.text[:start]) and right.islower()) else " "

    def masked(self, form: str = FORMS[0]) -> Masked:
        """The sentence with stand-ins for its spans."""
        return mask(self.smooth.text, self.smooth.spans, form)

    def parts(self) -> list[tuple[str, bool]]:
        """(part, kept): the sentence cut at its spans."""
        return list(around(self.smooth.text, self.smooth.spans))

    def finished(self, translated: str) -> str:
        """A translation, its spans back in their places, with the line breaks of the sentence.

        A sentence that comes back as it went is the text's own, byte for byte.
        """
        if translated == self.smooth.text:
            return self.text
        kept = {self.text[s.start : s.end] for s in self.spans}
        closed = [m.span() for span in kept for m in regex.finditer(regex.escape(span), translated)]
        free = [b for b in line_breaks(translated) if not any(s < b < e for s, e in closed)] if self.breaks else []
        out, at = [], 0
        for (start, end), place in zip(self.breaks, self.smooth.breaks, strict=True):
            free = [b for b in free if b > at]
            if not free:
                break
            wanted = place * len(translated) / len(self.smooth.text)
            border = min(free, key=lambda b: abs(b - wanted))
            out += [translated[at:border].rstrip(), self.text[start:end]]
            at = border
        return "".join(out) + translated[at:]

    def tidy(self, translated: str) -> str:
        """An engine's output as part of one line; a pipe that would end a table's cell is escaped."""
        line = _LINE_ENDS.sub(" ", translated).strip()
        return _BARE_PIPE.sub(r"\\|", line) if self.cell else line


@dataclass(frozen=True)
class Protected:
    """A text and its sentences in order; what lies between them stays."""

    text: str
    sentences: tuple[Sentence, ...]

    @property
    def segments(self) -> list[str]:
        """What to translate, one line each, protected spans as stand-ins."""
        return [sentence.masked().text for sentence in self.sentences]

    def restore(self, translated: Sequence[str], target: str | None = None) -> str:
        """The text with a translation for each of ``segments``.

        A sentence whose stand-ins did not come back stays in the source language; ``SegmentedTranslator`` tries
        again instead. SdrrlError when there are not as many translations as segments.
        """
        if len(translated) != len(self.sentences):
            raise SdrrlError(f"{len(translated)} translations were given for {len(self.sentences)} segments")
        done = []
        for sentence, line in zip(self.sentences, translated, strict=True):
            restored = sentence.masked().restore(sentence.tidy(line))
            done.append(sentence.text if restored is None else sentence.finished(restored))
        return self.assemble(done, target)

    def assemble(self, done: Sequence[str], target: str | None = None) -> str:
        """The text with each sentence replaced; ``target`` adapts the space between two sentences to the language."""
        out: list[str] = []
        at = 0
        for number, sentence in enumerate(self.sentences):
            gap = self.text[at : sentence.start]
            if number and target is not None:
                gap = _gap(gap, self.text[:at][-1:], done[number - 1], target)
            out += [gap, done[number]]
            at = sentence.end
        return "".join(out) + self.text[at:]


def _gap(gap: str, source_end: str, left: str, target: str) -> str:
    """Space between two sentences of one line: none in Japanese, one where the source script had none to keep."""
    if target in _NO_SPACE_BETWEEN_SENTENCES:
        return "" if gap.strip(" \u3000") == "" and _WRITTEN_TOGETHER.search(left) else gap
    return " " if gap == "" and not _WRITTEN_APART.search(source_end) else gap


def protect(
    text: str, source: str = "eng", max_units: int | None = None, count: Callable[[str], int] = len
) -> Protected:
    """Segment a text of the language ``source`` (ISO 639-3).

    A sentence for which ``count`` gives more than ``max_units`` is cut at clauses, else spaces, else words, else
    characters. ``restore(segments)`` is the text.
    """
    found = layout(text)
    in_table = {line: bool(found.pipes) and _beside_pipe(text, line, found.pipes) for line in found.prose}
    breaks = wraps(text, [line for line in found.prose if not in_table[line]])
    # Where a break of wrapped prose stood are spaces, as many as it had characters: offsets are the text's.
    smooth = _blanked(text, breaks)
    sentences: list[Sentence] = []
    for line in _joined_lines(found.prose, breaks):
        for start, end in _ranges(smooth, line, source):
            own = [s for s in line.spans if start <= s.start and s.end <= end]
            sentences += _sentences(smooth, start, end, own, in_table.get(line, False), source, max_units, count)
    return Protected(text, tuple(_with_breaks(text, sentence, breaks) for sentence in sentences))


def _blanked(text: str, breaks: Sequence[tuple[int, int]]) -> str:
    out, at = [], 0
    for start, end in breaks:
        out += [text[at:start], " " * (end - start)]
        at = end
    return "".join(out) + text[at:]


def _joined_lines(lines: Sequence[Line], breaks: Sequence[tuple[int, int]]) -> list[Line]:
    """The lines, those with a break of wrapped prose between them as one."""
    joints = set(breaks)
    out: list[Line] = []
    for line in lines:
        if out and (out[-1].end, line.start) in joints:
            out[-1] = Line(out[-1].start, line.end, out[-1].spans + line.spans)
        else:
            out.append(line)
    return out


def _with_breaks(text: str, sentence: Sentence, breaks: Sequence[tuple[int, int]]) -> Sentence:
    """The sentence with the text's own characters, and the breaks inside it."""
    first = bisect.bisect_left(breaks, (sentence.start, 0))
    inside = itertools.takewhile(lambda b: b[1] <= sentence.end, breaks[first:])
    own = tuple((a - sentence.start, b - sentence.start) for a, b in inside)
    return replace(sentence, text=text[sentence.start : sentence.end], breaks=own)


def _beside_pipe(text: str, line: Line, pipes: Sequence[int]) -> bool:
    """Whether a cell's pipe stands before or after the prose on its line."""
    after = bisect.bisect_left(pipes, line.end)
    near = [*pipes[max(after - 1, 0) : after], *pipes[after : after + 1]]
    return any(not regex.search(r"[\r\n]", text[min(p, line.start) : max(p, line.end)]) for p in near)


def _ranges(text: str, line: Line, source: str) -> list[tuple[int, int]]:
    """Sentences of a line without the whitespace around them."""
    prose = text[line.start : line.end]
    closed = [(s.start - line.start, s.end - line.start) for s in line.spans]
    at = [0, *borders(prose, source, closed), len(prose)]
    return [(line.start + a, line.start + b) for a, b in itertools.pairwise(at)]


def _core(text: str, start: int, end: int, spans: Sequence[Span]) -> tuple[int, int, tuple[Span, ...]] | None:
    """A range without whitespace and marks at its edges; None when no letter stands outside its spans."""
    inside = [s for s in spans if start <= s.start and s.end <= end]
    while True:
        piece = text[start:end]
        # A span may begin or end with a control character that counts as whitespace; it stays whole.
        first, last = (inside[0].start, inside[-1].end) if inside else (end, start)
        start = min(start + _length(_LEAD.match(piece)), first)
        end = max(start, end - _length(_TAIL.search(piece)), last)
        start, end = _without_open_brackets(text, start, end, first, last)
        if inside and inside[0].mark and inside[0].start <= start:
            start = max(start, inside.pop(0).end)
        elif inside and inside[-1].mark and inside[-1].end >= end:
            end = min(end, inside.pop().start)
        elif piece == text[start:end]:
            break
    own = tuple(Span(s.start - start, s.end - start, s.mark) for s in inside)
    letters = any(not kept for _, kept in around(text[start:end], own))
    return (start, end, own) if letters else None


def _length(match: regex.Match[str] | None) -> int:
    return len(match.group()) if match else 0


def _without_open_brackets(text: str, start: int, end: int, first: int, last: int) -> tuple[int, int]:
    """The range without a bracket at its edge that opens or closes outside of it: "(One." and "Two.)" are sentences."""
    for opening, closing in _BRACKETS.items():
        piece = text[start:end]
        if piece.startswith(opening) and start < first and piece.count(opening) > piece.count(closing):
            start += 1
        elif piece.endswith(closing) and end > last and piece.count(closing) > piece.count(opening):
            end -= 1
    return start, end


def _sentences(
    text: str,
    start: int,
    end: int,
    spans: Sequence[Span],
    cell: bool,
    source: str,
    max_units: int | None,
    count: Callable[[str], int],
) -> list[Sentence]:
    core = _core(text, start, end, spans)
    if core is None:
        return []
    start, end, own = core
    piece = text[start:end]
    whole = Sentence(start, end, piece, own, cell)
    if max_units is None or count(whole.masked().text) <= max_units:
        return [whole]

    def part(a: int, b: int) -> Sentence | None:
        inner = _core(piece, a, b, own)
        return (
            Sentence(start + inner[0], start + inner[1], piece[inner[0] : inner[1]], inner[2], cell) if inner else None
        )

    def fits(a: int, b: int) -> bool:
        chunk = part(a, b)
        return chunk is None or count(chunk.masked().text) <= max_units

    cut = split_long(piece, source, fits, [(s.start, s.end) for s in own])
    return [chunk for chunk in (part(a, b) for a, b in cut) if chunk is not None]


def protected_spans(text: str) -> list[tuple[int, int]]:
    """[start, end) of what neither translation nor code-switching may touch, in order and disjoint.

    Code, formulas, addresses, tags, placeholders, symbols, and the pipes of tables.
    """
    found = layout(text)
    fixed = _joined(sorted([*found.opaque, *((p, p + 1) for p in found.pipes)]), touching=True)
    inline = [(s.start, s.end) for line in found.prose for s in line.spans]
    # what a sentence may move stays apart from what it touches
    return _joined(sorted([*fixed, *inline]), touching=False)


def _joined(spans: Sequence[tuple[int, int]], touching: bool) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for start, end in spans:
        if out and start < out[-1][1] + touching:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif start < end:
            out.append((start, end))
    return out
