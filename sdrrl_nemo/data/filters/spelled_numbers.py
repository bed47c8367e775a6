"""Numbers that a text writes without digits: in words, in Roman numerals, in kanji and hangul.

They may stand for digits of the other side and are never asked for, so a form that also means something else does no
harm. The tables are in ``number_words.py``.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction

import regex

from sdrrl_nemo.common.optional import require
from sdrrl_nemo.data.filters.number_reading import (
    STEM_TAIL,
    Number,
    Value,
    ascii_digits,
    hours_of,
    scale_after,
    scale_of,
)
from sdrrl_nemo.data.filters.number_words import CARDINALS, HALVES, MONTHS, NOON, ORDINALS, SCALES
from sdrrl_nemo.data.text.segmentation.sentences import locale_of
from sdrrl_nemo.data.text.words import tokenize

_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_CYRILLIC = str.maketrans("ІХСМ", "IXCM")
_ROMAN_WORD = regex.compile(r"(?<![\p{L}\p{M}\p{Nd}'])([IVXLCDMІХСМ]+)(?=(?:e|er|re|ère|ème|ᵉ|º|ª)?(?![\p{L}\p{M}]))")
_ROMAN_RULE = re.compile(r"M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")
_KANJI = re.compile(r"[〇零一二三四五六七八九十百千万萬億兆]{1,60}")
_HANGUL = re.compile(r"(?<![가-힣])(?=[일이삼사오육칠팔구]*[십백천만억조])[일이삼사오육칠팔구십백천만억조]{1,60}")
_AS_KANJI = str.maketrans("일이삼사오육칠팔구십백천만억조", "一二三四五六七八九十百千万億兆")
_KANJI_DIGITS = {c: n for n, c in enumerate("〇一二三四五六七八九")} | {"零": 0}


def in_words(text: str, code: str) -> list[Number]:
    """Numbers written without digits: words up to twelve, scales, months, halves, Roman and kanji numerals."""
    text = unicodedata.normalize("NFC", ascii_digits(text))
    out = [Number(m.group(1), frozenset({Fraction(n)})) for m in _ROMAN_WORD.finditer(text) if (n := roman(m.group(1)))]
    if code in ("jpn", "kor"):
        for match in (_KANJI if code == "jpn" else _HANGUL).finditer(text):
            n = kanji(match.group().translate(_AS_KANJI))
            out.append(Number(match.group(), frozenset({Fraction(n)}) | hours_of(text, n, *match.span(), code)))
    out += _words(text.lower(), code)
    return out


def roman(written: str) -> int:
    """Value of a Roman numeral; 0 for letters that are none."""
    latin = written.translate(_CYRILLIC)
    if not latin or not _ROMAN_RULE.fullmatch(latin):
        return 0
    values = [_ROMAN[c] for c in latin]
    return sum(-v if v < max(values[i:]) else v for i, v in enumerate(values))


def kanji(written: str) -> int:
    """Value of a kanji numeral, by place (二〇二六) or with units (二千二十六, 三億五千万)."""
    if not any(c in "十百千万萬億兆" for c in written):
        return int("".join(str(_KANJI_DIGITS[c]) for c in written))
    total = below = digit = 0
    for c in written:
        unit = SCALES["jpn"].get(c)
        if unit is None:
            digit = 10 * digit + _KANJI_DIGITS[c]
        elif unit < 10**4:
            below, digit = below + (digit or 1) * unit, 0
        else:
            total, below, digit = total + (below + digit or 1) * unit, 0, 0
    return total + below + digit


@functools.cache
def _forms(code: str) -> dict[str, tuple[int, ...]]:
    """Form or stem of a word -> the numbers it may stand for."""
    out: dict[str, tuple[int, ...]] = {}
    for table, first in ((CARDINALS, 0), (ORDINALS, 1), (MONTHS, 1)):
        for n, forms in enumerate(table.get(code, "").split(", ") if code in table else (), first):
            for form in forms.split("|"):
                out[form] = (*out.get(form, ()), n)
    for forms, hours in zip(NOON.get(code, "").split(", "), ((12,), (0, 12, 24)), strict=False):
        out |= dict.fromkeys(filter(None, forms.split("|")), hours)
    return {form: (n,) for form, n in _spelled(code)} | out


def _spelled(code: str) -> Iterator[tuple[str, int]]:
    """(word, number) up to 100 as CLDR spells them, from 13 where a table has the smaller ones; a long word is also a
    stem (dvacet, dvaceti)."""
    message = require("icu4py.messageformat", "icu4py", "data").MessageFormat("{n, spellout}", locale_of(code))
    for n in range(13 if code in CARDINALS else 0, 101):
        word = str(message.format({"n": n})).lower().replace("\u00ad", "").replace("\u200b", "").replace("ʼ", "'")
        yield word, n
        if len(word) >= _LEAST_STEM and " " not in word:
            yield f"{word}*", n


_LEAST_STEM = 5


@functools.cache
def _most_words(code: str) -> int:
    """Words that the longest form has; where words are not spaced, ICU may cut a form into four."""
    return 4 if code in ("tha", "khm") else max(form.count(" ") + 1 for form in _forms(code) or [""])


def _words(text: str, code: str) -> Iterator[Number]:
    spans = tokenize(text, code)
    at = 0
    while at < len(spans):
        for length in range(_most_words(code), 0, -1):
            group = spans[at : at + length]
            written = text[group[0][0] : group[-1][1]].replace("\u200b", "").replace("’", "'")
            values = _meanings(written, code) if len(group) == length else frozenset()
            if values:
                start, end = group[0][0], group[-1][1]
                scale, _ = scale_after(text, end, code)
                hours = [
                    h
                    for v in values
                    if isinstance(v, Fraction) and v <= 12 and v.denominator == 1
                    for h in hours_of(text, int(v), start, end, code)
                ]
                scaled = {v * scale for v in values if isinstance(v, Fraction)} if scale > 1 else set()
                yield Number(written, frozenset({*values, *hours, *scaled}))
                at += length - 1
                break
        at += 1


@functools.lru_cache(maxsize=8192)
def _meanings(word: str, code: str) -> frozenset[Value]:
    found = {Fraction(n) for n in _numbers_of(word, _forms(code))}
    if scale := scale_of(word, SCALES.get(code, {})):
        found.add(Fraction(scale))
    halves = HALVES.get(code, "").split("|")
    if word in halves or any(form.endswith("*") and _begins(word, form[:-1]) for form in halves):
        found |= {Fraction(2 * n + 1, 2) for n in range(13)}  # one and a half is 1.5
        found |= {Fraction(30), Fraction(90)}  # minutes of half an hour, of one and a half
    return frozenset(found)


def _begins(word: str, stem: str) -> bool:
    return word.startswith(stem) and len(word) - len(stem) <= STEM_TAIL


_KOREAN_TAIL = re.compile(
    r"(?:[월년일시분명개번층도권회주차인원대장째가을를은는이의]|세기|번째|마리|사람|에서?|까지|부터)*"
)


def _numbers_of(word: str, forms: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    if word in forms:
        return forms[word]
    stems = [form for form in forms if form.endswith("*") and _begins(word, form[:-1])]
    if not stems and "가" <= word[:1] <= "힣":  # a counter or a particle stands behind without a space: 세개, 십이월
        stems = [form for form in forms if word.startswith(form) and _KOREAN_TAIL.fullmatch(word, len(form))]
    return forms[max(stems, key=len)] if stems else ()
