"""Sentence borders by rule, for Latin- and Cyrillic-script text; other scripts come back as one sentence a line."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ABBREVIATIONS = frozenset(
    """mr mrs ms dr prof sr sra srs dra st jr vs etc eg ie e.g i.e a.m p.m u.s u.k u.n ca approx no nos fig figs vol pp
    ed eds inc ltd co corp dept est gen col capt sgt lt rev hon p.ex ex art cap pág núm av""".split()  # noqa: SIM905
)
# A stop, closing quotes or brackets, space, then something a sentence can begin with.
_BORDER = re.compile(r"([.!?…]+)([\"'”’)\]»*_]*)(\s+)(?=[\"'“‘(\[«¿¡*_]*[^\W_])")
_LAST_END = re.compile(r"[.!?…。！？][\"'”’)\]»*_]*(?=\s|$)")
_FENCE = re.compile(r"^\s*(```|~~~)", re.MULTILINE)
_LIST_NUMBER = re.compile(r"^\s*(?:[-*+•]\s+)?(?:\*\*)?\(?(?:\d{1,3}|[A-Za-z])[.)]?$")


def _is_border(text: str, match: re.Match[str], start: int) -> bool:
    following = text[match.end() :].lstrip("\"'“‘([«¿¡*_")
    if following[:1].islower():
        return False
    if match.group(1) != ".":
        return True
    words = text[start : match.start()].split()
    if not words:
        return False
    last = words[-1].lstrip("\"'“‘([«*_").lower()
    initial = len(last) == 1 and last.isalpha() and words[-1][-1:].isupper() and last != "i"
    marker = len(words) == 1 and re.fullmatch(r"\d{1,3}|[a-zA-Z]", last)
    return not (last in _ABBREVIATIONS or initial or marker)


def split_sentences(line: str, closed: Sequence[tuple[int, int]] = ()) -> list[str]:
    """Pieces of one line whose concatenation is the line; the space after a sentence belongs to it.

    No border is set inside the spans ``closed``, such as code.
    """
    pieces: list[str] = []
    start = 0
    for match in _BORDER.finditer(line):
        inside = any(s <= match.start() < e for s, e in closed)
        if not inside and _is_border(line, match, start):
            pieces.append(line[start : match.end()])
            start = match.end()
    if start < len(line):
        pieces.append(line[start:])
    return pieces


def trim_unfinished(text: str) -> str:
    """What stands complete in an answer that was cut at the token limit; '' when nothing does.

    The cut line is kept up to its last finished sentence, or dropped when it has none. Lines that only announce the
    lost part (ending in a colon) and an unclosed code block go too.
    """
    fences = [match.start() for match in _FENCE.finditer(text)]
    if len(fences) % 2:
        text = text[: fences[-1]]
        return _drop_announcements(text.rstrip().split("\n"))
    lines = text.rstrip().split("\n")
    cut = lines.pop()
    ends = [m.end() for m in _LAST_END.finditer(cut) if not _LIST_NUMBER.match(cut[: m.end()])]
    if ends:
        lines.append(cut[: ends[-1]])
    return _drop_announcements(lines)


def _drop_announcements(lines: list[str]) -> str:
    while lines and (not lines[-1].strip() or lines[-1].rstrip().rstrip("*_").endswith(":")):
        lines.pop()
    return "\n".join(lines).strip()
