"""The numbers that a text states, each with every value it may be read as in the text's language.

A digit is a digit in any script (Thai ๑, Khmer ១, full-width １). "1.234,5" is 1234.5 in Portuguese, "2万" is 20000,
"3 pm" is 3 or 15, "the 1990s" 1990 or 90. What holds several numbers ("15:30", "2/3", "3分の2", "1.2.3") is compared as
a whole first, and by its parts where the other side writes it otherwise. The tables are in ``number_words.py``.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import regex

from sdrrl_nemo.common.optional import require
from sdrrl_nemo.data.filters.number_words import (
    AFTERNOON,
    HOUR_WORDS,
    SCALES,
)
from sdrrl_nemo.data.text.segmentation.sentences import locale_of
from sdrrl_nemo.data.text.words import tokenize

Value = Fraction | str
"""A number, or what is no number ("1.2.3") as it is written."""


@dataclass(frozen=True)
class Number:
    """``text``: as written, its digits in ASCII; ``values``: what it may mean; ``parts``: the numbers inside it.

    ``needed``: whether the other side must have it too; the 00 of 15:00 may be left out, and so may 2 in m².
    """

    text: str
    values: frozenset[Value]
    parts: tuple[Number, ...] = ()
    needed: bool = True


class Separators(NamedTuple):
    """Of decimals, "," or ".", and whether thousands stand apart by spaces."""

    decimal: str
    spaces: bool


@functools.cache
def separators(code: str) -> Separators:
    """Those of CLDR: 1,234.5 or 1.234,5 or 1 234,5."""
    message = require("icu4py.messageformat", "icu4py", "data").MessageFormat("{n, number}", locale_of(code))
    written = str(message.format({"n": 1234567.5}))
    return Separators(written[-2:-1] if written[-2:-1] in (",", ".") else ".", any(c.isspace() for c in written))


_ENDLESS = re.compile(r"[0-9⁰¹²³⁴⁵⁶⁷⁸⁹]{60,}")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_SAME = str.maketrans("，．：／％−₀₁₂₃₄₅₆₇₈₉\u00a0\u202f\u2009’", ",.:/%-0123456789\u202f\u202f\u202f'")
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
_TOKEN = re.compile(
    rf"(?P<whole>\d+)?[ \u202f]?(?P<vulgar>[{_VULGAR}])"
    r"|(?P<mixed>(?<!\d)\d{1,2} \d/\d{1,2}(?![/\d]))"
    r"|(?P<below>\d+)[ ]?(?:分の|분의)[ ]?(?P<above>\d+)"
    r"|(?P<power>[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
    r"|(?P<list>\d+(?:[:/]\d+)+)"
    r"|(?P<spaced>(?<!\d)\d{1,3}(?: \d{3})+(?!\d)(?:[.,]\d+)?)"
    r"|(?P<plain>\d+(?:[.,'\u202f]\d+)*)"
)
_GROUPED = re.compile(r"\d{1,3}(?:([.,'\u202f ])\d{3})(?:\1\d{3})*(?:[.,]\d+)?|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?")
_DECADE = re.compile(r"['’]?s\b")
_THOUSANDS = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "bn": 10**9}
_ATTACHED = re.compile(r"(k|K|M|B|bn)(?![^\W\d_])")
STEM_TAIL = 4


def ascii_digits(text: str) -> str:
    """The text with ASCII digits and separators, without digits in such numbers that they are no number."""
    plain = _OTHER_DIGIT.sub(lambda m: str(unicodedata.decimal(m.group())), text.translate(_SAME))
    return _ENDLESS.sub(" ", plain)


def stated(text: str, code: str) -> list[Number]:
    """The numbers written in digits, in the order of the text of language ``code``."""
    text = ascii_digits(text)
    out: list[Number] = []
    at = 0
    while match := _TOKEN.search(text, at):
        number, at = _number(text, match, code)
        out.append(number)
    return out


def _number(text: str, match: re.Match[str], code: str) -> tuple[Number, int]:
    """The number of a match and where it ends, its scale words included."""
    kind, written, start, end = match.lastgroup, match.group().strip(), match.start(), match.end()
    if kind == "vulgar":
        part = Fraction(unicodedata.numeric(match.group("vulgar"))).limit_denominator(10)
        return Number(written, frozenset({int(match.group("whole") or 0) + part})), end
    if kind == "mixed":
        whole, above, below = re.findall(r"\d+", written)
        parts = _plain(whole), _fraction(f"{above}/{below}", above, below)
        return Number(
            written, frozenset({int(whole) + v for v in parts[1].values if isinstance(v, Fraction)}), parts
        ), end
    if kind == "above":
        return _fraction(written, match.group("above"), match.group("below")), end
    if kind == "power":
        return Number(written, frozenset({Fraction(written.translate(_SUPERSCRIPT))}), needed=False), end
    if kind == "list":
        return _list(text, match, code), end
    if kind == "spaced" and not _one_number(written, code):
        written = written.partition(" ")[0]  # "in 2020 300 people": two numbers
        end = start + len(written)
    return _withscale_after(text, written, start, end, code)


def _one_number(written: str, code: str) -> bool:
    """Whether digits in threes between spaces are one number, by the language or since they cannot be two."""
    return separators(code).spaces or written.endswith(" 000") or written.count(" ") > 1 or not written[-4:].isdigit()


def _fraction(written: str, above: str, below: str) -> Number:
    values: set[Value] = {Fraction(int(above), int(below))} if int(below) else set()
    return Number(written, frozenset(values), (_plain(above), _plain(below)))


def _plain(digits: str) -> Number:
    return Number(digits, frozenset({Fraction(digits)}))


def _list(text: str, match: re.Match[str], code: str) -> Number:
    """A time, a date, a fraction, a ratio: 15:30, 17/5/2024, 2/3, 16:9."""
    written = match.group()
    pieces = re.split(r"[:/]", written)
    if ":" in written and len(pieces[-1]) == 2:
        hour = Number(pieces[0], hours_of(text, int(pieces[0]), match.start(), match.end(), code))
        minutes = (Number(p, frozenset({Fraction(p)}), needed=int(p) > 0) for p in pieces[1:])
        whole = frozenset(f"{value}:{written.partition(':')[2]}" for value in hour.values)
        return Number(written, whole, (hour, *minutes))
    if "/" in written and len(pieces) == 2:
        return _fraction(written, *pieces)
    return Number(written, frozenset({written}), tuple(map(_plain, pieces)))


def _withscale_after(text: str, written: str, start: int, end: int, code: str) -> tuple[Number, int]:
    """A number with the words that multiply it, and what is added to it: 5 million, 3億5000万."""
    base = _values(written, code)
    scale, after = scale_after(text, end, code)
    if scale == 1:
        if match := _ATTACHED.match(text, end):
            base |= {value * _THOUSANDS[match.group(1)] for value in base if isinstance(value, Fraction)}
        return _in_context(text, written, start, end, code, base), end
    total = frozenset(value * scale for value in base if isinstance(value, Fraction))
    more = _ADDED.match(text, after) if code in ("jpn", "kor") else None
    if more:
        number, more_end = _withscale_after(text, more.group(1), more.start(1), more.end(1), code)
        sums = {a + b for a in total for b in number.values if isinstance(b, Fraction) and b < scale}
        if sums:
            return Number(text[start:more_end], frozenset(sums)), more_end
    return Number(text[start:after], total), after


_ADDED = re.compile(r" ?(\d+(?:,\d{3})*)")


def _in_context(text: str, written: str, start: int, end: int, code: str, values: set[Value]) -> Number:
    """What stands around a number may give it another reading."""
    more: set[Value] = set(values)
    parts: tuple[Number, ...] = ()
    if written.isdigit():
        n = int(written)
        if n <= 24:
            more = more - {Fraction(n)} | hours_of(text, n, start, end, code)
        if _DECADE.match(text, end) and code == "eng":
            more.add(Fraction(n % 100))
            more |= {Fraction(1900 + n)} if n < 100 else set()
            more |= {Fraction(n // 100 + 1)} if n >= 1000 and n % 100 == 0 else set()  # the 1800s: the 19th century
        if text.startswith("割", end):
            more.add(Fraction(10 * n))
        if code in ("tha", "khm") and 2400 <= n < 2700:  # years of the Buddha are 543 or 544 ahead
            more |= {Fraction(n - 543), Fraction(n - 544)}
        zeros = written == "00" and text[max(start - 2, 0) : start].rstrip()[-1:] in ("h", "H", ":", "時", "시")
        return Number(written, frozenset(more), needed=not zeros)
    if re.fullmatch(r"\d{1,2}\.\d{2}", written) and int(written[:-3]) < 25 and int(written[-2:]) < 60:
        parts = tuple(Number(p, frozenset({Fraction(p)}), needed=int(p) > 0) for p in written.split("."))
    elif any(isinstance(value, str) for value in values):
        parts = tuple(_plain(piece) for piece in re.findall(r"\d+", written))
    return Number(written, frozenset(more), parts)


def _values(written: str, code: str) -> set[Value]:
    """What digits with separators mean: thousands and decimals as the language writes them."""
    decimal = separators(code).decimal
    if written.isdigit():
        return {Fraction(written)}
    marks = set(re.sub(r"\d", "", written))
    if _GROUPED.fullmatch(written):
        last = re.search(r"([.,])(\d+)$", written)
        if last and (len(marks) > 1 or (written.count(last.group(1)) == 1 and last.group(1) == decimal)):
            whole = re.sub(r"\D", "", written[: last.start()])
            return {Fraction(f"{whole}.{last.group(2)}")}
        return {Fraction(re.sub(r"\D", "", written))}
    if re.fullmatch(r"\d+[.,]\d+", written):
        return {Fraction(written.replace(",", "."))}
    return {written}


def scale_after(text: str, at: int, code: str) -> tuple[int, int]:
    """(product, end) of the scale words that follow a number: 5 million, 2 mil milhões, 3百万."""
    scales = SCALES.get(code, {})
    product = 1
    spaced = code not in ("jpn", "kor", "tha", "khm")
    while True:
        match = (_WORD_AFTER if spaced else _ANY_AFTER).match(text, at)
        if match is None:
            return product, at
        if spaced:
            factor, length = scale_of(match.group(1).lower(), scales), len(match.group(1))
        else:
            factor, length = _prefix(match.group(1), scales, code)
        if not factor:
            return product, at
        product, at = product * factor, match.start(1) + length


_WORD_AFTER = regex.compile(r"[ \u202f-]?([\p{L}\p{M}]+)")
_ANY_AFTER = regex.compile(r"[ \u202f]?([\p{L}\p{M}\u200b]+)")


def _prefix(run: str, scales: dict[str, int], code: str) -> tuple[int, int]:
    """The scale word that a run of letters begins with; in Thai and Khmer only where ICU ends a word there."""
    found = max((s for s in scales if run.startswith(s)), key=len, default="")
    if not found or (code in ("tha", "khm") and len(found) not in _word_ends(run, code)):
        return 0, 0
    return scales[found], len(found)


@functools.lru_cache(maxsize=1024)
def _word_ends(run: str, code: str) -> frozenset[int]:
    return frozenset(end for _, end in tokenize(run, code))


def scale_of(word: str, forms: dict[str, int]) -> int:
    """The value of a word: its own form, else the longest stem that it begins with; 0: none."""
    if word in forms:
        return forms[word]
    for cut in range(len(word), max(len(word) - STEM_TAIL, 1) - 1, -1):
        if (stem := f"{word[:cut]}*") in forms:
            return forms[stem]
    return 0


def hours_of(text: str, hour: int, start: int, end: int, code: str) -> frozenset[Value]:
    """The hour, on the clock of 24 hours too where words beside it say that it is after noon, or midnight.

    An hour that is told to be after noon is another than the one before noon: "3 pm" is 15, or "3 late", which the
    other side says by words for the afternoon somewhere in its text.
    """
    values: set[Value] = {Fraction(hour)}
    if hour < 12 and _is_late(text, start, end, code):
        values = {Fraction(hour + 12), f"{hour} late"}
        if code != "eng" or not _PM.match(text, end):
            values.add(Fraction(hour))
    elif hour < 12 and _mentions_afternoon(text, code):
        values.add(f"{hour} late")
    if code == "eng" and hour == 12 and _AM.match(text, end):
        values |= {Fraction(0), Fraction(24)}
    if code == "tha" and re.match(r"\s?ทุ่ม", text[end : end + 6]):
        values |= {Fraction(hour + 6), Fraction(hour + 18)}
    return frozenset(values)


_PM = re.compile(r"\s?p\.?\s?m\b", re.IGNORECASE)
_AM = re.compile(r"\s?a\.?\s?m\b", re.IGNORECASE)


def _is_late(text: str, start: int, end: int, code: str) -> bool:
    """Whether the words for afternoon stand right before the hour, or behind it and its minutes."""
    if _PM.match(text, end):  # also where a translation leaves it as it is
        return True
    words = AFTERNOON.get(code)
    if words is None:
        return False
    behind = rf"\s*{HOUR_WORDS}?\s*(?:\d\d)?\s*(?:\w{{1,3}} ){{0,2}}(?:l')?(?:{words})"
    before = rf"(?:{words})(?:,? at)?\s*$"
    around = re.match(behind, text[end : end + 40], re.IGNORECASE) or re.search(
        before, text[max(start - 25, 0) : start], re.IGNORECASE
    )
    return around is not None


@functools.lru_cache(maxsize=64)
def _mentions_afternoon(text: str, code: str) -> bool:
    return code in AFTERNOON and re.search(AFTERNOON[code], text, re.IGNORECASE) is not None
