"""Words and letters of a text in every language of languages.py.

Where words are written apart, a word is a run of letters, digits and marks with inner apostrophes and hyphens.
Japanese, Thai and Khmer are cut by ICU's dictionary-based break iterator, through the package ``icu4py``. Compared on
sentences segmented by hand with the alternatives that work without a download:

===================  ======  =============================================================================
package              size    against the hand-made words
===================  ======  =============================================================================
icu4py 1.2.0         48 MB   one library for all three languages, 3.8 million characters a second, licence MIT
                             (ICU and its dictionaries: Unicode-3.0); splits compounds (ห้อง|สมุด, 人工|知能)
pythainlp 5.4 newmm  67 MB   Thai only; fewer split compounds (น่ารัก in one piece)
budoux 0.10          0.4 MB  phrases, not words (図書館で, 説明してください): no dictionary entry matches
janome, unidic       200 MB  Japanese only; as fine as ICU or finer (図書|館)
khmercut 0.2         25 MB   Khmer only; as ICU on all but one word
===================  ======  =============================================================================

Split compounds cost nothing where a dictionary is looked up: `sdrrl_nemo.data.stages.code_switch` tries runs of
neighbouring words first. The script decides, not the language: a Latin word in a Thai text is a Latin word, a Japanese
one in an English text is cut by ICU.

Korean words are eojeol, a stem with its particles; `korean_stems` takes particles off for a dictionary lookup. Verb
endings are not undone, so inflected verbs find no entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata

import regex

from sdrrl_nemo.common.optional import require

# Japanese kana and ideographs, Thai, Khmer: scripts that put no space between words. Khmer texts may hold zero-width
# spaces between words, which ICU reads as boundaries.
_KANA = "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
UNSPACED = f"{_KANA}{_HAN}\u0e01-\u0e3a\u0e40-\u0e5b\u1780-\u17ff\u19e0-\u19ff"
_MARKS = "\u0300-\u036f"
_LETTER = rf"(?:[^\W{UNSPACED}][{_MARKS}]*)"
_TOKEN = re.compile(
    rf"(?P<unspaced>[{UNSPACED}](?:[{UNSPACED}]|[\u200b-\u200d](?=[{UNSPACED}]))*)"
    rf"|{_LETTER}+(?:['’\-‐‑]{_LETTER}+)*"
)
_UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
_GRAPHEME = regex.compile(r"\X")

Span = tuple[int, int]


def is_unspaced(text: str) -> bool:
    """True when ``text`` begins with a letter of a script that puts no space between words."""
    return _UNSPACED_CHARACTER.match(text) is not None


def identity() -> str:
    """What cuts unspaced scripts, for fingerprints of stages whose result depends on words."""
    try:
        return f"icu4py {metadata.version('icu4py')}"
    except metadata.PackageNotFoundError:
        return "no icu4py"


def tokenize(text: str, code: str) -> list[Span]:
    """Spans [start, end) of the words of ``text`` in order, punctuation and spaces left out.

    ``code`` is the text's ISO 639-3 language. SdrrlError when the text has Japanese, Thai or Khmer letters and icu4py
    is not installed.
    """
    out: list[Span] = []
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "unspaced":
            out.extend(_dictionary_words(match.group(), match.start(), code))
        else:
            out.append(match.span())
    return out


def words(text: str, code: str) -> list[str]:
    """The words of ``text`` as texts."""
    return [text[a:b] for a, b in tokenize(text, code)]


_LOCALES = {"tha": "th", "khm": "km"}


def _dictionary_words(run: str, offset: int, code: str) -> Iterator[Span]:
    """Words of a run of unspaced letters. ICU counts UTF-16 units, which differ where a letter is beyond U+FFFF."""
    breaker = require("icu4py.breakers", "icu4py", "data").WordBreaker(run, _LOCALES.get(code, "ja"))
    units = None
    if not run.isascii() and max(run) > "\uffff":
        units = [i for i, c in enumerate(run) for _ in range(2 if c > "\uffff" else 1)] + [len(run)]
    for a, b in breaker.segments():
        start, end = (units[a], units[b]) if units else (a, b)
        if any(c.isalnum() for c in run[start:end]):
            yield offset + start, offset + end


def graphemes(text: str) -> list[Span]:
    """Spans of the characters a reader sees (extended grapheme clusters, UAX 29): Thai vowels and tone marks and
    Khmer subscripts stay with their letter."""
    return [m.span() for m in _GRAPHEME.finditer(text)]


# Particles by what they may follow: a syllable with a final consonant, one without, or either.
_AFTER_CONSONANT = ("은", "이", "을", "과", "으로", "이나", "이랑", "아", "이란", "이라는", "이에요", "이었습니다")
_AFTER_VOWEL = ("는", "가", "를", "와", "로", "나", "랑", "야", "란", "라는", "예요", "였습니다")
_AFTER_EITHER = (
    "의", "에", "에서", "에게", "에게서", "께", "께서", "한테", "도", "만", "까지", "부터", "보다", "처럼", "마다",
    "밖에", "조차", "마저", "들", "입니다", "입니까", "인가요", "이다", "인", "이며", "이고", "하고", "같은", "에는",
)  # fmt: skip
_PARTICLES = sorted({*_AFTER_CONSONANT, *_AFTER_VOWEL, *_AFTER_EITHER}, key=lambda p: (len(p), p))
_RIEUL = 8  # index of the final consonant ㄹ, after which 로 is written, not 으로
_MOST_PARTICLES = 3


def _may_follow(stem: str, particle: str) -> bool:
    last = stem[-1]
    if not "가" <= last <= "힣":
        return last.isalnum()  # a foreign word or a number: how it is read decides, and that is not known here
    final = (ord(last) - 0xAC00) % 28
    if particle in _AFTER_EITHER:
        return True
    if particle in ("로", "으로") and final == _RIEUL:
        return particle == "로"
    return particle in (_AFTER_CONSONANT if final else _AFTER_VOWEL)


def korean_stems(word: str) -> list[int]:
    """Ends of the stems that ``word`` (an eojeol) may have, longest stem first, the whole word left out.

    Up to three particles are taken off, each only where the sound before it allows it: 책을 -> 책, but 마을 keeps 을.
    """
    ends: set[int] = set()
    frontier = {len(word)}
    for _ in range(_MOST_PARTICLES):
        frontier = {
            end - len(p)
            for end in frontier
            for p in _PARTICLES
            if end > len(p) and word.endswith(p, 0, end) and _may_follow(word[: end - len(p)], p)
        }
        ends |= frontier
    return sorted(ends, reverse=True)
