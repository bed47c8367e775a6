"""What a sentence-level translator may not touch: line structure, list markers, code, addresses, foreign symbols."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sdrrl_nemo.data.text.sentence_ends import split_sentences

_FENCE = re.compile(r"\s*(```|~~~)")
_MARKER = re.compile(r"(?:\s+|#{1,6}\s+|>\s*|[-*+•–]\s+|\[[ xX]\]\s+|\(?\d{1,3}[.)]\s+|\(?[a-zA-Z][.)]\s+)*")
_PROTECTED = re.compile(
    r"`[^`]+`"  # code span
    r"|(?:https?|ftp)://[^\s<>\"')\]]*[^\s<>\"')\].,;:!?]"
    r"|\bwww\.[^\s<>\"')\]]*[^\s<>\"')\].,;:!?]"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"  # e-mail address
    r"|\$\$[^$]+\$\$|\\\(.+?\\\)|\\\[.+?\\\]"  # formulas
)
_WORD = re.compile(r"[^\s\"(),;:!?]+")
_LETTER = re.compile(r"[^\W\d_]")
_FOLD = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "\u00a0": " ", "\u2011": "-"})


@dataclass(frozen=True)
class Piece:
    """Part of a text; the pieces of a text concatenate to it. ``translate`` marks one sentence to translate."""

    text: str
    translate: bool


def pieces(text: str) -> list[Piece]:
    """Cut a text into sentences to translate and everything between them, which stays as it is."""
    out: list[Piece] = []
    fence: str | None = None
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark and fence in (None, mark.group(1)):
            fence = None if fence else mark.group(1)
            out.append(Piece(line, False))
        elif fence:
            out.append(Piece(line, False))
        elif line.lstrip().startswith("|") and line.count("|") > 1:
            for cell in re.split(r"(\|)", line):
                out += _line_pieces(cell)
        else:
            out += _line_pieces(line)
    return out


def _line_pieces(line: str) -> Iterator[Piece]:
    marker = _MARKER.match(line)
    start = marker.end() if marker else 0
    if start:
        yield Piece(line[:start], False)
    rest = line[start:]
    for sentence in split_sentences(rest, [match.span() for match in _PROTECTED.finditer(rest)]):
        core = sentence.rstrip()
        if core:
            yield Piece(core, bool(_LETTER.search(core)))
        if len(core) < len(sentence):
            yield Piece(sentence[len(core) :], False)


@dataclass(frozen=True)
class Masked:
    """A sentence whose protected spans are placeholders; ``spans`` are the originals in order."""

    text: str
    placeholders: tuple[str, ...]
    spans: tuple[str, ...]

    def restore(self, translated: str) -> str | None:
        """Translation with the spans put back, or None unless each placeholder is there exactly once."""
        if any(translated.count(p) != 1 for p in self.placeholders):
            return None
        for placeholder, span in zip(self.placeholders, self.spans, strict=True):
            translated = translated.replace(placeholder, span)
        return translated


def fold_typography(text: str) -> str:
    """Curly quotes and special spaces as the ASCII ones that small vocabularies know."""
    return text.translate(_FOLD)


def protected_spans(sentence: str, known: Callable[[str], bool]) -> list[tuple[int, int]]:
    """(start, end) of code, addresses, formulas, and of words with a character that ``known`` refuses."""
    spans = [match.span() for match in _PROTECTED.finditer(sentence)]
    for match in _WORD.finditer(sentence):
        start, end = match.span()
        while end > start and sentence[end - 1] in ".'":
            end -= 1
        inside = any(s < end and start < e for s, e in spans)
        if not inside and not all(known(c) for c in sentence[start:end]):
            spans.append((start, end))
    return sorted(spans)


def mask(sentence: str, spans: list[tuple[int, int]]) -> Masked:
    """Replace ``spans`` by placeholders (``X1X``, ``X2X``, ...) that the sentence does not hold already."""
    letter = next(c for c in "XZQKWYJVRTABCDEFGHILMNOPSU" if not re.search(rf"{c}\d+{c}", sentence))
    text, at, names, originals = "", 0, [], []
    for number, (start, end) in enumerate(spans, 1):
        name = f"{letter}{number}{letter}"
        text += sentence[at:start] + name
        at = end
        names.append(name)
        originals.append(sentence[start:end])
    return Masked(text + sentence[at:], tuple(names), tuple(originals))


def around(sentence: str, spans: list[tuple[int, int]]) -> Iterator[Piece]:
    """The sentence cut at ``spans``: what lies between is translated piece by piece, spaces and spans stay."""
    at = 0
    for start, end in [*spans, (len(sentence), len(sentence))]:
        between = sentence[at:start]
        core = between.strip()
        if _LETTER.search(core):
            lead = len(between) - len(between.lstrip())
            yield Piece(between[:lead], False)
            yield Piece(core, True)
            yield Piece(between[lead + len(core) :], False)
        else:
            yield Piece(between, False)
        yield Piece(sentence[start:end], False)
        at = end
