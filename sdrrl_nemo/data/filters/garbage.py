"""Remains of web pages and of broken encodings."""

from __future__ import annotations

import re
from collections import Counter

import regex

from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair

_MARKUP = re.compile(r"</?[A-Za-z][A-Za-z0-9-]*(?:\s[^<>\n]*)?/?>|<!--|&(?:#\d+|#[xX][0-9A-Fa-f]+|[A-Za-z]{2,8});")


@FILTERS.register("markup")
class Markup(Filter):
    """HTML tags and entities that the source has not; an instruction about HTML keeps its own."""

    version = 2

    def __init__(self, max_extra: int = 0) -> None:
        self.max_extra = max_extra

    def reject(self, pair: TextPair) -> str | None:
        source = Counter() if pair.alone else Counter(_MARKUP.findall(pair.source))
        extra = Counter(_MARKUP.findall(pair.target)) - source
        if extra.total() <= self.max_extra:
            return None
        return f"{extra.total()} tags or entities added {sorted(extra)[:3]}, more than {self.max_extra}"


# UTF-8 read as Windows-1252: é becomes Ã©, п Ð¿, ก à¸ and a sign. One two-byte letter alone is believed only after Ã or
# Â and not before a no-break space, a guillemet or other signs of the sentence: CAFÉ” is French.
_WINDOWS = "\u0080-\u00ff€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_HIGH_RUN = re.compile(f"[{_WINDOWS}]{{2,}}")
_MISREAD = re.compile(rb"(?:[\xc3-\xdf][\x80-\xbf]){2,}|[\xe1-\xef][\x80-\xbf]{2}|\xe0[\xa0-\xbf][\x80-\xbf]")
_MISREAD_LETTER = re.compile("[ÃÂ][\u0080-\u009f\u00a1-\u00aa\u00ac-\u00ba\u00bc-\u00bf]")


def _misread(text: str) -> int:
    """Letters that look like UTF-8 read as Windows-1252."""
    count = 0
    for run in _HIGH_RUN.findall(text):
        raw = b"".join(c.encode("cp1252", "ignore") or c.encode("latin-1") for c in run)
        longer = sum(map(len, _MISREAD.findall(raw))) // 2
        count += longer or len(_MISREAD_LETTER.findall(run))
    return count


# Cn, Co, Cs: unassigned, private use, surrogate. Format characters (Cf) such as joiners are part of texts.
_BROKEN = regex.compile(r"[\p{Cc}\p{Cn}\p{Co}\p{Cs}\uFFFD--[\n\t\r]]", regex.V1)


@FILTERS.register("control")
class Control(Filter):
    """Characters that no text has: controls, unassigned or private code points, U+FFFD, and wrongly decoded letters."""

    version = 2

    def __init__(self, maximum: int = 0) -> None:
        self.maximum = maximum

    def reject(self, pair: TextPair) -> str | None:
        broken = len(_BROKEN.findall(pair.target))
        wrong = _misread(pair.target)
        if broken + wrong <= self.maximum:
            return None
        return (
            f"{broken} control or broken characters and about {wrong} wrongly decoded letters, more than {self.maximum}"
        )
