"""Inline parts of a line that a translator must not touch: code, addresses, formulas, tags, placeholders, symbols."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import regex

from sdrrl_nemo.data.text.segmentation.code_lines import json_ranges

_TLD = (
    "com|org|net|edu|gov|mil|int|info|io|ai|dev|app|co|uk|de|fr|br|pt|eu|cz|pl|jp|kr|ua|fi|dk|no|se|hu|si|bg|vn|th|id"
)
_EXTENSION = (
    "py|ipynb|js|ts|jsx|tsx|css|html?|xml|json|jsonl|ya?ml|toml|ini|cfg|conf|csv|tsv|txt|md|rst|tex|pdf|docx?|xlsx?|"
    "pptx?|png|jpe?g|gif|svg|mp[34]|wav|zip|tar|gz|exe|dll|so|sh|bat|ps1|c|h|cc|cpp|hpp|cs|java|kt|go|rs|rb|php|pl|sql|"
    "log|db|parquet|bin|gguf"
)
# A letter or digit of a script that puts spaces between words: の, ก or 를 may touch an address or a name of code.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Khmer}\p{Lao}\p{Myanmar}"
_W = rf"[^\W{_UNSPACED}]"
_FIRST, _LAST = rf"(?<!{_W})", rf"(?!{_W})"
"""Where a word of such a script begins and ends; ``\\b`` sees no border between ก and h."""
_NO_URL = r"\s<>\"'`\[\]\\^，。、；：！？」』）"
"""Inside a character class: what ends a URL, besides brackets and letters of a script without spaces."""
_EMOJI_UNIT = (
    r"(?:\p{Regional_Indicator}{2}|[0-9#*]\uFE0F?\u20E3"
    r"|(?![0-9#*©®™])\p{Extended_Pictographic}(?:\uFE0F|\p{Emoji_Modifier})?[\U000E0020-\U000E007F]*)"
)

# Alternatives in order of precedence: at one position the first that matches wins. Runs are bounded where an unclosed
# opening mark would otherwise make a long line cost quadratic time.
_NAMED = (
    ("code", r"(?<!`)(?P<tick>`{1,4})(?!`)[^\r\n]{1,1000}?(?<!`)(?P=tick)(?!`)"),
    ("token", r"<\|[^|<>\r\n]{1,60}\|>|<</?[A-Z]{2,10}>>|\[/?[A-Z]{3,10}(?:_[A-Z]+)?\]"),
    ("link", r"\]\([^()\s<>]{1,1000}(?:\([^()\s<>]*\)[^()\s<>]*)?(?:\s\"[^\"\r\n]{0,200}\")?\)"),
    ("tag", r"<!--.{0,1000}?-->|</?[A-Za-z][A-Za-z0-9:-]{0,30}(?:\s[^<>]{0,500})?/?>"),
    (
        "url",
        _FIRST + r"(?:(?:https?|ftps?|file|ssh|git|s3|wss?)://|www\.)" + rf"[^{_NO_URL}(){{}}|]"
        rf"(?:[^{_NO_URL}()|{_UNSPACED}]|(?<=[/=])[{_UNSPACED}]+|\([^\s()<>]{{0,200}}\)){{0,2000}}(?<![.,;:!?*_])",
    ),
    ("url", _FIRST + r"(?:mailto|tel|doi):[^\s<>\"']{1,300}(?<![.,;:!?])"),
    ("email", r"[A-Za-z0-9_.+%-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+"),
    (
        "math",
        r"\$\$[^$\r\n]{1,1000}\$\$|\\\(.{1,1000}?\\\)|\\\[.{1,1000}?\\\]"
        r"|(?<![\\$\w])\$(?![\s$])[^$\r\n]{0,500}(?<![\s\\])\$(?![\d$])",
    ),
    (
        "placeholder",
        r"\{\{[^{}\r\n]{0,200}\}\}|\{%[^{}\r\n]{0,200}%\}|\$?\{[A-Za-z_0-9][\w.:!,-]{0,60}\}|\{\}"
        r"|(?<![\w%])%\([\w ]{1,40}\)[sdifr]|(?<![\w%])%(?:\d+\$)?[-+0#]*\d*(?:\.\d+)?[sdifgGeExXrcu](?!\w)",
    ),
    (
        "path",
        r"(?<![\w/])(?:~|\.{1,2}|[A-Za-z]:)?/(?:[\w.@+-]+/)+[\w.@+-]*(?<!\.)|(?<![\w/])(?:~|\.{1,2})/[\w.@+-]+(?<!\.)"
        rf"|{_FIRST}[A-Za-z]:\\[^\s\"<>|*?]{{0,300}}(?<![.,;:])"
        rf"|{_FIRST}(?:{_W}|-){{1,60}}(?:\.(?:{_W}|-){{1,60}}){{0,4}}\.(?:{_EXTENSION}){_LAST}(?!\.\w)",
    ),
    ("latex", r"\\[A-Za-z]{1,40}(?:\[[^\[\]\r\n]{0,100}\])?(?:\{[^{}\r\n]{0,200}\})*"),
    (
        "url",
        rf"{_FIRST}(?:[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?\.){{1,5}}(?:{_TLD}){_LAST}"
        r"(?:/[^\s<>\"'`()\[\]|]{0,500}(?<![.,;:!?]))?(?!\.\w)",
    ),
    ("entity", r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});"),
    (
        "identifier",
        rf"(?<!{_W})(?<!-)--[a-z](?:{_W}|-){{1,60}}"
        rf"|{_FIRST}[A-Za-z]{_W}{{0,60}}(?:\.[A-Za-z_]{_W}{{0,60}}){{0,5}}\(\)"
        rf"|{_FIRST}[A-Za-z0-9]{{1,60}}(?:_[A-Za-z0-9]{{1,60}})+{_LAST}",
    ),
    ("emoji", _EMOJI_UNIT + r"(?:\u200D" + _EMOJI_UNIT + r")*"),
    # Controls, lone surrogates, private use, line and paragraph separators. What no reader sees is left out of a
    # sentence instead (invisible.py).
    (
        "control",
        r"[\x00-\x08\x0B-\x0C\x0E-\x1F\x7F-\x9F\u2028\u2029\uFFF9-\uFFFD"
        r"\uE000-\uF8FF\uD800-\uDFFF\U000F0000-\U0010FFFF]+",
    ),
)
_INLINE = regex.compile("|".join(f"(?P<{name}__{i}>{pattern})" for i, (name, pattern) in enumerate(_NAMED)))
_LINK_TEXT = regex.compile(r"!?\[(?=[^\[\]\r\n]{0,500}$)")
_FIXED_ORDER = frozenset({"tag", "link", "emoji", "control", "token"})
"""Kinds that mark places rather than stand for words; their order among themselves is part of the text."""


@dataclass(frozen=True)
class Span:
    """Half-open range of a text that stays as it is. ``mark``: it marks a place; otherwise it stands for a word."""

    start: int
    end: int
    mark: bool


def _found(line: str) -> Iterator[Span]:
    last_link = 0
    taken: list[tuple[int, int]] = []
    for match in _INLINE.finditer(line):
        kind = str(match.lastgroup).partition("__")[0]
        start, end = match.span()
        if kind == "link":
            opening = _LINK_TEXT.search(line, last_link, start)
            if opening and not any(s < opening.end() and opening.start() < e for s, e in taken):
                yield Span(opening.start(), opening.end(), True)
            last_link = end
        taken.append((start, end))
        yield Span(start, end, kind in _FIXED_ORDER)


def inline_spans(line: str) -> list[Span]:
    """Protected spans of one line in order, disjoint; spans that touch are joined, for placeholders need borders."""
    json = [Span(start, end, False) for start, end in json_ranges(line)]
    others = (s for s in _found(line) if not any(j.start < s.end and s.start < j.end for j in json))
    out: list[Span] = []
    for span in sorted([*json, *others], key=lambda s: (s.start, s.end)):
        if out and out[-1].end == span.start:
            out[-1] = Span(out[-1].start, span.end, out[-1].mark and span.mark)
        else:
            out.append(span)
    return out
