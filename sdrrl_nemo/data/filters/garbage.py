"""Remains of web pages and of broken encodings."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair

_MARKUP = re.compile(r"</?[A-Za-z][A-Za-z0-9-]*(?:\s[^<>\n]*)?/?>|<!--|&(?:#\d+|#[xX][0-9A-Fa-f]+|[A-Za-z]{2,8});")


@FILTERS.register("markup")
class Markup(Filter):
    """HTML tags and entities that the source has not; an instruction about HTML keeps its own."""

    def __init__(self, max_extra: int = 0) -> None:
        self.max_extra = max_extra

    def reject(self, pair: TextPair) -> str | None:
        source = Counter() if pair.source == pair.target else Counter(_MARKUP.findall(pair.source))
        extra = Counter(_MARKUP.findall(pair.target)) - source
        if extra.total() <= self.max_extra:
            return None
        return f"{extra.total()} tags or entities added {sorted(extra)[:3]}, more than {self.max_extra}"


_KEPT_CONTROLS = "\n\t\r"
# UTF-8 read as Windows-1252 or Latin-1: é becomes Ã©, a typographic quote â€™, Thai à¸, Khmer áž, kana ã.
# A no-break space or a guillemet after Ã is Portuguese or Vietnamese.
_MOJIBAKE = re.compile(
    r"[ÃÂ][\u0080-\u009f\u00a1-\u00aa\u00ac-\u00ba\u00bc-\u00bf]|â€[^\w\s]?|à[¸¹][\u0080-\u2122]|áž.|ã[\u0080-\u0083‚ƒ„][\u0080-\u2122]"
)


def _is_broken(character: str) -> bool:
    if character == "\ufffd":
        return True
    # Cn, Co, Cs: unassigned, private use, surrogate. Format characters (Cf) such as joiners are part of texts.
    return unicodedata.category(character) in {"Cc", "Cn", "Co", "Cs"} and character not in _KEPT_CONTROLS


@FILTERS.register("control")
class Control(Filter):
    """Characters that no text has: controls, unassigned or private code points, U+FFFD, and wrongly decoded letters."""

    def __init__(self, maximum: int = 0) -> None:
        self.maximum = maximum

    def reject(self, pair: TextPair) -> str | None:
        broken = sum(map(_is_broken, pair.target))
        wrong = len(_MOJIBAKE.findall(pair.target))
        if broken + wrong <= self.maximum:
            return None
        return f"{broken} control or broken characters and {wrong} wrongly decoded letters, more than {self.maximum}"
