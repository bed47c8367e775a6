"""Line breaks that only keep a line short: prose wrapped at a column, as in e-mails and text files.

A sentence that goes on in the next line is translated as one. A break is taken for such a one where the next line's
first word would not have fitted, as a program that fills lines breaks them; verse, addresses and lists do not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import regex

from sdrrl_nemo.data.text.segmentation.blocks import Line

NARROWEST, WIDEST = 55, 100
"""Columns of the widest line of wrapped prose."""

_GAP = regex.compile(r"[ \t]?(?:\r\n|\r|\n)[ \t]*(?:>[ \t]*)*")  # two spaces before it are a break that is meant
_ENDS_SENTENCE = regex.compile(r"[.!?…:;。！？\\][\"'”’»)\]*_]*\Z")
_FIRST_WORD = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Khmer}]|\S+")
_CAPITAL = regex.compile(r"\W*\p{Lu}")


def wraps(text: str, lines: Sequence[Line]) -> list[tuple[int, int]]:
    """[end of a line's prose, start of the next one's) for each line break inside wrapped prose."""
    out: list[tuple[int, int]] = []
    paragraph: list[Line] = []
    for line in lines:
        if paragraph and not _adjacent(text, paragraph[-1], line):
            out += _of_paragraph(text, paragraph)
            paragraph = []
        paragraph.append(line)
    return out + _of_paragraph(text, paragraph)


def _adjacent(text: str, line: Line, following: Line) -> bool:
    """Whether nothing but a line break, and marks of a quotation, stands between two lines; a heading ends with one."""
    before = text[_line_start(text, line.start) : line.start]
    gap = text[line.end : following.start]
    return _GAP.fullmatch(gap) is not None and "#" not in before and gap.count(">") == before.count(">")


def _of_paragraph(text: str, lines: Sequence[Line]) -> list[tuple[int, int]]:
    if len(lines) < 2:
        return []
    widths = [_width(text[_line_start(text, line.start) : line.end]) for line in lines]
    capitals = [_CAPITAL.match(text, line.start) is not None for line in lines[1:]]
    if not NARROWEST <= max(widths) <= WIDEST or (len(lines) > 2 and all(capitals)):
        return []
    out = []
    for line, following, width, capital in zip(lines, lines[1:], widths, capitals, strict=False):
        prose = text[line.start : line.end]
        word = _FIRST_WORD.match(text, following.start)
        room = max(widths) - width - 1
        verse = capital and prose.endswith((",", "-", "—"))
        if word and _width(word.group()) > room and not _ENDS_SENTENCE.search(prose) and not verse:
            out.append((line.end, following.start))
    return out


def _line_start(text: str, at: int) -> int:
    return max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1


def _width(text: str) -> int:
    """Columns on a screen: ideographs and kana take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
