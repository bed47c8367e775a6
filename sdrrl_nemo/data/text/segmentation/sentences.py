"""Sentence borders in the languages of ``languages.py``, and cuts inside a sentence too long for an engine.

sentencex (Wikimedia; abbreviations and numbering of many languages) proposes a border and ICU's rules (Unicode
Annex 29 with CLDR) confirm it: each alone cuts where the other does not ("M. Dupont", "Május 5. napján"). Khmer has
no rules in sentencex and is ICU's alone. Thai ends a sentence with a space as it ends a phrase, so its line is one
sentence unless it is too long.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import regex

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import require

LOCALES = {
    "eng": "en", "fra": "fr", "ces": "cs", "dan": "da", "ukr": "uk", "bul": "bg", "fin": "fi", "hun": "hu",
    "nob": "nb", "ind": "id", "jpn": "ja", "kor": "ko", "por": "pt", "slv": "sl", "vie": "vi", "pol": "pl",
    "tha": "th", "khm": "km", "spa": "es",
}  # fmt: skip
"""ISO 639-3 -> BCP 47 tag of CLDR."""

_ICU_ONLY = frozenset({"khm"})
# Both libraries end a sentence after these; lower-cased, without the stop.
_ABBREVIATIONS = {
    "fra": frozenset({"m", "mm", "mme", "mlle", "art", "chap", "env"}),
    "por": frozenset({"av", "exmo", "art", "cap", "pág"}),
    "spa": frozenset({"av", "avda", "art", "cap", "pág", "ud", "uds"}),
    "vie": frozenset({"ts", "tp", "pgs", "gs", "ths", "bs", "q", "p", "tt"}),
    "ukr": frozenset({"м", "вул", "просп", "обл"}),
    "bul": frozenset({"гр", "ул", "бул", "проф"}),
}
_OPENING = "「『（【〔“‘«(["
_LAST_WORD = regex.compile(r"([\p{L}\p{M}]+)\.\s*\Z")
_NUMBER_ALONE = regex.compile(r"(?:\d{1,3}|\p{L})[.)]")  # "1. ", "a) ": a number left alone is no sentence
_BEFORE_SMALL = regex.compile(r"(?<=[\p{L}\p{N}][)\]}\"'”’»]*)\.[)\]}\"'”’»]*\s+[\"'“‘«(\[]*(?=\p{Ll})")
_FIRST_LETTER = regex.compile(r"[\"'“‘«(\[]*(\p{L})")
# What may stand with a stop inside a sentence, before a small letter: single letters, numbers, words with inner stops,
# and abbreviations of the languages here.
_SHORT = regex.compile(
    r"(?:^|[^\p{L}\p{M}])(?:\p{L}|\p{N}+|(?:\p{L}+\.)+\p{L}+|mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|eg|ie|ca|cca|cf|approx|aprox"
    r"|env|no|nos|nr|núm|num|fig|figs|vol|pp|ed|eds|inc|ltd|co|corp|dept|est|gen|incl|excl|max|min|resp|sec|ch|art|chap|pág"
    r"|sra|srs|dra|av|exmo|obs|např|tzv|tj|atd|apod|mj|popř|č|str|sv|ul|nám|fx|osv|mv|bl|dvs|iflg|kl|pga|np|tzw|itd|itp|ok"
    r"|godz|esim|ym|jne|ks|mm|ns|klo|pl|stb|ún|kb|ill|sz|npr|ipd|oz|št|напр|тзв|рр|ст|див|см|рис|тис|млн|млрд|вул|просп|обл|ім"
    r"|вкл|стр|гр|бул|ул|dll|dsb|dst|hlm|yth|tp|ts|pgs|gs|ths|bs|mme|mlle|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec"
    r"|sum|abs|cap|loc|cit|op|ibid|al|viz|assn|ave|blvd|rd|mt|ft|lb|lbs|oz|tel|temp|vers|v)\.$",
    regex.IGNORECASE,
)
_SHORT_END = 30
"""Characters before a stop that an abbreviation is looked for in."""
_OPENING_BRACKET = regex.compile(r"\s*([(\[（【])")
_CLOSING_BRACKET = {"(": ")", "[": "]", "（": "）", "【": "】"}
_WHOLE_SENTENCE = regex.compile(r"\S\s\S.*[.!?…。！？][\"'”’»]*\s*\Z|[。！？]\s*\Z")
_CLAUSE = regex.compile(r"(?:[,;:،؛](?=\s)|[、，；：。！？!?។៖](?=\S)|[)\]}”»](?=\s)|\s[–—-](?=\s)|[.!?…](?=\s))\K\s*")
_SPACE = regex.compile(r"\s+\K")


def locale_of(code: str) -> str:
    """CLDR tag of an ISO 639-3 code; an unknown code is passed on, for which both libraries have general rules."""
    return LOCALES.get(code, code)


def _icu(kind: str) -> Any:
    return getattr(require("icu4py.breakers", "icu4py", "data"), kind)


def _icu_borders(kind: str, text: str, locale: str) -> list[int]:
    """Inner borders as offsets of code points; ICU counts UTF-16 units and knows no lone surrogates."""
    safe = regex.sub(r"[\uD800-\uDFFF]", "\ufffd", text)
    ends = [end for _, end in _icu(kind)(safe, locale).segments()]
    if text.isascii() or max(text, default="") <= "\uffff":
        return [e for e in ends if 0 < e < len(text)]
    units, at = [0], 0
    for character in safe:
        at += 2 if character > "\uffff" else 1
        units.append(at)
    positions = {unit: i for i, unit in enumerate(units)}
    return [positions[e] for e in ends if e in positions and 0 < positions[e] < len(text)]


def _sentencex_borders(text: str, locale: str) -> list[int]:
    segment = require("sentencex", "sentencex", "data").segment
    safe = regex.sub(r"[\uD800-\uDFFF]", "\ufffd", text)
    out, at = [], 0
    for part in segment(locale, safe):
        at += len(part)
        out.append(at)
    if at != len(text):
        # A piece that is not the text's own would shift every later border; ICU's rules alone then.
        return _icu_borders("SentenceBreaker", text, locale)
    return [e for e in out if e < len(text)]


def _after_space(text: str, border: int) -> int:
    """A border stands behind the whitespace that follows the sentence, and before a quote that opens the next."""
    while border > 1 and text[border - 1] in _OPENING:
        border -= 1
    while border < len(text) and text[border].isspace():
        border += 1
    return border


def borders(text: str, code: str, closed: Sequence[tuple[int, int]] = ()) -> list[int]:
    """Offsets inside one line at which a sentence begins; none lies inside the ranges ``closed``."""
    if len(text) < 3:
        return []
    for start, end in closed:
        if end - start > 2:  # punctuation and letter case inside a span say nothing about the sentence
            text = text[:start] + "X" * (end - start) + text[end:]
    found = sorted({*_proposed(text, code), *_before_small_letters(text, code)})
    out: list[int] = []
    for border in found:
        if border >= len(text) or any(s < border < e for s, e in closed):
            continue
        if not _is_fragment(text[out[-1] if out else 0 : border], code):
            out.append(border)
    inside = (_inside_brackets(text, a, b, code, closed) for a, b in itertools.pairwise([0, *out, len(text)]))
    return sorted({*out, *itertools.chain.from_iterable(inside)})


def _is_fragment(piece: str, code: str) -> bool:
    """Whether what looks like a sentence ends with an abbreviation or is a number alone."""
    word = _LAST_WORD.search(piece)
    short = _ABBREVIATIONS.get(code, frozenset())
    return bool(word and word.group(1).lower() in short) or _NUMBER_ALONE.fullmatch(piece.strip()) is not None


def _proposed(text: str, code: str) -> list[int]:
    """Borders that both libraries see."""
    locale = locale_of(code)
    confirmed = [_after_space(text, b) for b in _icu_borders("SentenceBreaker", text, locale)]
    if code in _ICU_ONLY or not confirmed:
        return confirmed
    proposed = {_after_space(text, b) for b in _sentencex_borders(text, locale)}
    return [b for b in confirmed if b in proposed]


def _before_small_letters(text: str, code: str) -> list[int]:
    """Borders before a sentence that begins with a small letter ("iPhones are good. eBay is not."; chats, names).

    They are those that the libraries see when the letter is a capital, but for abbreviations, which stand inside a
    sentence before a small letter and at its end before a capital.
    """
    places = [
        m.end()
        for m in _BEFORE_SMALL.finditer(text)
        if not _SHORT.search(text[max(m.start() - _SHORT_END, 0) : m.start() + 1]) and len(text[m.end()].upper()) == 1
    ]
    if not places:
        return []
    raised = list(text)
    for place in places:
        raised[place] = raised[place].upper()
    return [b for b in _proposed("".join(raised), code) if _small_at(text, b)]


def _small_at(text: str, border: int) -> bool:
    first = _FIRST_LETTER.match(text, border)
    return first is not None and first.group(1).islower()


def _inside_brackets(text: str, start: int, end: int, code: str, closed: Sequence[tuple[int, int]]) -> list[int]:
    """Borders in and behind brackets that hold whole sentences, where a sentence begins with one."""
    out: list[int] = []
    while (found := _bracketed(text, start, end)) is not None:
        first, last = found
        shifted = [(s - first, e - first) for s, e in closed if first <= s and e <= last]
        out += [first + b for b in borders(text[first:last], code, shifted)]
        start = _after_space(text, last + 1)
        if not last + 1 < start < end:
            break
        out.append(start)
    return out


def _bracketed(text: str, start: int, end: int) -> tuple[int, int] | None:
    """[first, last) of the sentences in the bracket that [start, end) begins with; None where it holds none."""
    opening = _OPENING_BRACKET.match(text, start, end)
    if opening is None:
        return None
    first, bracket = opening.end(), opening.group(1)
    last = text.find(_CLOSING_BRACKET[bracket], first, end)
    inner = text[first:last]
    if last < 0 or bracket in inner or not _WHOLE_SENTENCE.search(inner) or _SHORT.search(inner.rstrip()[-_SHORT_END:]):
        return None
    return first, last


def split_sentences(text: str, code: str, closed: Sequence[tuple[int, int]] = ()) -> list[str]:
    """Sentences of one line, which concatenate to it; the space after a sentence belongs to it."""
    at = [0, *borders(text, code, closed), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(at) if a < b]


def line_breaks(text: str) -> list[int]:
    """Offsets inside a text at which a line may begin: behind spaces, and between words of scripts without them."""
    return _icu_borders("LineBreaker", text, "en")


def _cuts(text: str, locale: str) -> Iterator[Callable[[], list[int]]]:
    """Places to cut, best first: clauses, spaces, ICU's line breaks (words of Thai, Khmer), characters."""
    yield lambda: [m.start() for m in _CLAUSE.finditer(text)]
    yield lambda: [m.start() for m in _SPACE.finditer(text)]
    yield lambda: _icu_borders("LineBreaker", text, locale)
    yield lambda: _icu_borders("CharacterBreaker", text, locale)
    yield lambda: list(range(1, len(text)))


def split_long(
    text: str,
    code: str,
    fits: Callable[[int, int], bool],
    closed: Sequence[tuple[int, int]] = (),
) -> list[tuple[int, int]]:
    """Ranges that cover the text, each accepted by ``fits(start, end)`` and as long as it can be.

    SdrrlError when even one character, or one closed range, does not fit.
    """
    levels = [functools.cache(level) for level in _cuts(text, locale_of(code))]
    starts = [s for s, _ in closed]

    def allowed(cut: int) -> bool:
        i = bisect.bisect_left(starts, cut) - 1
        return i < 0 or closed[i][1] <= cut

    tables: list[list[int] | None] = [None] * len(levels)

    def table(level: int) -> list[int]:
        known = tables[level]
        if known is None:
            known = tables[level] = sorted(c for c in set(levels[level]()) if 0 < c < len(text) and allowed(c))
        return known

    out: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = len(text) if fits(start, len(text)) else _furthest(start, len(levels), table, fits)
        if end is None:
            raise SdrrlError(
                f"max_units of the translator leaves no room for '{text[start : start + 20]}' (character {start}); "
                f"raise it"
            )
        out.append((start, end))
        start = end
    return out


def _furthest(
    start: int, levels: int, table: Callable[[int], list[int]], fits: Callable[[int, int], bool]
) -> int | None:
    """The last cut that fits, of the best level that has one; ``fits`` is taken to be monotone."""
    for level in range(levels):
        cuts = table(level)
        low = bisect.bisect_right(cuts, start)
        count = bisect.bisect_left(range(low, len(cuts)), True, key=lambda i: not fits(start, cuts[i]))
        if count > 0:
            return cuts[low + count - 1]
    return None
