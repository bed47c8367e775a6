"""Lines of a text: which hold prose, and what stands around the prose. CommonMark and GFM tables by markdown-it-py.

Markdown is only a guide to what a line is: nothing is normalised, and the parts of a text concatenate to it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import regex
from markdown_it import MarkdownIt

from sdrrl_nemo.data.text.segmentation.code_lines import is_code, json_ranges
from sdrrl_nemo.data.text.segmentation.invisible import INVISIBLE
from sdrrl_nemo.data.text.segmentation.spans import Span, inline_spans

_LINE = regex.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
"""The line ends that CommonMark knows; vertical tabs, form feeds and U+2028 stay inside a line."""

_PREFIX = regex.compile(
    rf"(?:[{INVISIBLE}]+"
    r"|\s+|>\s?|#{1,6}(?=\s)|[-*+](?=\s)|[•‣◦▪●○–—・]\s*|\[[ xX]\](?=\s)|[①-⑳]\s*"
    r"|\(\d{1,3}\)(?=\s)|\d{1,4}(?:\.\d{1,3}){0,3}[.)](?=\s)|\d{1,3}、|（\d{1,3}）"
    r"|\([a-zA-Z]\)(?=\s)|[a-zA-Z]\)(?=\s)|[A-Ha-h]\.(?=\s)|[ivxIVX]{2,5}[.)](?=\s))*+"
)
_HEADING_END = regex.compile(r"\s+#+\s*\Z")
_OPAQUE_HTML = regex.compile(r"\s*<(?:script|style|pre|textarea|!|\?)", regex.IGNORECASE)
_DISPLAY_MATH = regex.compile(
    # No blank line inside, as in TeX; the environment's name closes it.
    r"\$\$(?:[^$\r\n]|(?:\r\n|\r|\n)(?![ \t]*[\r\n])){1,4000}\$\$"
    r"|\\\[(?:(?!\\[\[\]])[^\r\n]|(?:\r\n|\r|\n)(?![ \t]*[\r\n])){1,4000}\\\]"
    r"|\\begin\{(?P<env>[A-Za-z]{1,20}\*?)\}(?:(?!\\end\{).){0,4000}\\end\{(?P=env)\}",
    regex.DOTALL,
)
_REFERENCE = regex.compile(r"\s{0,3}\[[^\]\r\n]{1,200}\]:\s*\S+\s*(?:\"[^\"]*\"|'[^']*')?\s*\Z")
_FENCE_MARK = regex.compile(r"(?:\s|>)*(?:```|~~~)")
_TABLE_RULE = regex.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*\Z")
_PIPE = regex.compile(r"(?<!\\)(?:\\\\)*+\K\|")
_LETTER = regex.compile(r"\p{L}")
_CODE_SIGN = regex.compile(
    r"[{}<>=\\_$|;\[\]]|\w\(|\s--?\w|^\s*(?:[#@%]|//|/\*|def |class |import |from \w+ import|return\b)|:\s*$",
    regex.MULTILINE,
)


@dataclass(frozen=True)
class Line:
    """Part of a text between two things that stay. ``prose`` is [start, end) in the text, ``spans`` are in the text."""

    start: int
    end: int
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Layout:
    """``prose``: the parts to translate in order; everything between them stays. ``pipes``: ends of table cells."""

    prose: tuple[Line, ...]
    pipes: tuple[int, ...]
    opaque: tuple[tuple[int, int], ...]


@functools.cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table").disable("inline")


def _reads_as_prose(code: str) -> bool:
    """Verse and letters are indented too; code shows its signs, commands begin in lower-case ASCII."""
    letter = _LETTER.search(code)
    return letter is not None and not _CODE_SIGN.search(code) and not ("a" <= letter.group() <= "z")


def _classes(text: str, lines: list[tuple[int, int]]) -> dict[int, str]:
    """Line number -> 'keep' or 'table', for lines that are not plain prose."""
    out: dict[int, str] = {}
    for token in _markdown().parse(text):
        if token.map is None:
            continue
        first, last = token.map
        last = min(last, len(lines))
        if first >= last:
            continue
        body = text[lines[first][0] : lines[last - 1][1]]
        keep = (
            token.type == "fence"
            or (token.type == "code_block" and not _reads_as_prose(body))
            or (token.type == "html_block" and _OPAQUE_HTML.match(body))
        )
        if keep or token.type == "table_open":
            out.update(dict.fromkeys(range(first, last), "keep" if keep else "table"))
    for number, (start, end) in enumerate(lines):
        if number not in out and is_code(text[start:end]):
            out[number] = "keep"
    return out


def _cells(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges between unescaped pipes that stand outside protected spans."""
    line = text[start:end]
    closed = [(s.start, s.end) for s in inline_spans(line)]
    at = 0
    for match in _PIPE.finditer(line):
        if not any(s <= match.start() < e for s, e in closed):
            yield start + at, start + match.start()
            at = match.end()
    yield start + at, end


def _trimmed(text: str, start: int, end: int, prefix: bool) -> Line | None:
    """The prose of a range without its prefix and trailing whitespace; None when no letter is outside spans."""
    part = text[start:end]
    if prefix:
        found = _PREFIX.match(part)
        lead = found.end() if found else 0
        closing = _HEADING_END.search(part) if part[:lead].lstrip().startswith("#") else None
        part = part[: closing.start()] if closing and closing.start() >= lead else part
        start += lead
        part = part[lead:]
    stripped = part.lstrip()
    start += len(part) - len(stripped)
    stripped = stripped.rstrip()
    if not _LETTER.search(stripped):
        return None
    spans = tuple(Span(s.start + start, s.end + start, s.mark) for s in inline_spans(stripped))
    return Line(start, start + len(stripped), spans)


def _opaque(text: str, lines: list[tuple[int, int]], classes: dict[int, str]) -> list[tuple[int, int]]:
    """Ranges that stay whole, disjoint: JSON over several lines, kept lines, and display formulas in the rest."""
    json = [(start, end) for start, end in json_ranges(text) if regex.search(r"[\r\n]", text[start:end])]
    kept = [lines[i] for i, kind in sorted(classes.items()) if kind == "keep"]
    out: list[tuple[int, int]] = []
    for start, end in sorted([*json, *kept]):  # a fence may hold JSON, and JSON lines that look like code
        if out and start < out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    at = 0
    for start, end in [*out, (len(text), len(text))]:
        out += [m.span() for m in _DISPLAY_MATH.finditer(text, at, start)]
        at = end
    return sorted(out)


def layout(text: str) -> Layout:
    """Find the prose of a text: outside code, formulas, raw HTML, table rules and definitions of links."""
    lines = [m.span() for m in _LINE.finditer(text)]
    classes = _classes(text, lines)
    opaque = _opaque(text, lines, classes)
    prose: list[Line] = []
    pipes: list[int] = []
    nearest = 0
    for number, (start, end) in enumerate(lines):
        if classes.get(number) == "keep":
            continue
        while nearest < len(opaque) and opaque[nearest][1] <= start:
            nearest += 1
        at, later = start, nearest
        while at < end:
            hole = opaque[later] if later < len(opaque) and opaque[later][0] < end else (end, end)
            if at < hole[0]:
                table = classes.get(number) == "table" or _looks_like_row(text[start:end])
                _range(text, (at, hole[0]), at == start, table, prose, pipes)
            at, later = max(at, hole[1]), later + 1
    return Layout(tuple(prose), tuple(pipes), tuple(opaque))


def _looks_like_row(line: str) -> bool:
    """A row of a table that lacks its rule, as models write them."""
    inner = line.strip()
    return inner.startswith("|") and inner.endswith("|") and inner.count("|") > 2


def _range(text: str, span: tuple[int, int], first: bool, table: bool, prose: list[Line], pipes: list[int]) -> None:
    start, end = span
    part = text[start:end]
    if _REFERENCE.match(part) or _FENCE_MARK.match(part) or (table and _TABLE_RULE.match(part)):
        pipes += [start + m.start() for m in _PIPE.finditer(part)] if table else []
        return
    cells = list(_cells(text, start, end)) if table else [(start, end)]
    pipes += [cell_end for _, cell_end in cells[:-1]]
    for number, (cell_start, cell_end) in enumerate(cells):
        line = _trimmed(text, cell_start, cell_end, prefix=first and number == 0)
        if line is not None:
            prose.append(line)
