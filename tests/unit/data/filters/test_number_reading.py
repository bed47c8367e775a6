"""Reading numbers: against CLDR's words and separators, and of any text whatever."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_nemo.data.filters import FILTERS, TextPair
from sdrrl_nemo.data.filters.number_matching import differences
from sdrrl_nemo.data.filters.number_reading import stated
from sdrrl_nemo.data.filters.number_words import CARDINALS, NOON, ORDINALS, SCALES
from sdrrl_nemo.data.filters.spelled_numbers import in_words, kanji, roman
from sdrrl_nemo.data.text.languages import LANGUAGES
from sdrrl_nemo.data.text.segmentation.sentences import LOCALES


def verdict(languages: str, source: str, target: str) -> str | None:
    return FILTERS.create("numbers").reject(TextPair(source, target, *languages.split("-")))


def spelled(n: int, code: str) -> str:
    """CLDR's word for a number, by ICU."""
    from icu4py.messageformat import MessageFormat

    word = MessageFormat("{n, spellout}", LOCALES[code]).format({"n": n})
    return str(word).replace("\u00ad", "").replace("\u200b", "").replace("ʼ", "'").lower()


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_the_words_are_those_of_cldr(code: str) -> None:
    """Zero to a hundred in every language, against ICU's own spelling."""
    for n in range(101):
        word = spelled(n, code)
        values = {value for number in in_words(f" {word} ", code) for value in number.values}
        assert Fraction(n) in values, (n, word)


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_separators_are_those_of_cldr(code: str) -> None:
    from icu4py.messageformat import MessageFormat

    for value in (1234567.5, 12345.25, 0.5, 3.125, 20000):
        written = str(MessageFormat("{n, number}", LOCALES[code]).format({"n": value}))
        assert [n.values for n in stated(written, code)] == [{Fraction(value)}], written


def test_every_language_has_its_tables() -> None:
    assert CARDINALS.keys() | {"jpn"} == SCALES.keys() == NOON.keys() == LANGUAGES.keys()
    assert CARDINALS.keys() == ORDINALS.keys()
    assert all(len(words.split(", ")) == 13 for words in CARDINALS.values())
    assert all(len(words.split(", ")) == 12 for words in ORDINALS.values())


_ROMAN = {
    1000: "M", 900: "CM", 500: "D", 400: "CD", 100: "C", 90: "XC", 50: "L", 40: "XL", 10: "X", 9: "IX", 5: "V", 4: "IV",
    1: "I",
}  # fmt: skip


def test_a_language_without_tables_has_cldrs_numbers() -> None:
    """German is no language of languages.py: separators and words are CLDR's."""
    source = "It was 1,234.5 km in 1999, 7 days and 20 nights."
    right = "Es waren 1.234,5 km im Jahr 1999, sieben Tage und zwanzig Nächte."
    assert verdict("eng-deu", source, right) is None
    assert verdict("eng-deu", source, right.replace("1999", "1989")) is not None


@given(st.integers(1, 3999))
def test_roman_numerals(n: int) -> None:
    written, rest = "", n
    for value, letters in _ROMAN.items():
        written += letters * (rest // value)
        rest %= value
    assert roman(written) == n
    assert roman(written + "IIII") == 0


@given(st.integers(0, 10**12 - 1))
def test_kanji_numerals(n: int) -> None:
    assert kanji(spelled(n, "jpn")) == n


@given(st.integers(10, 10**9), st.sampled_from(sorted(LANGUAGES)))
def test_digits_out_of_place_are_seen(n: int, code: str) -> None:
    """The number with two digits swapped, or one lost, is another number in every language."""
    digits = str(n)
    swapped = f"{digits[1]}{digits[0]}{digits[2:]}"
    for wrong in {swapped, digits[:-1]} - {digits}:
        missing, _ = differences(TextPair(f"a {digits} b", f"x {wrong} y", "eng", code))
        assert [number.text for number in missing] == [digits]


BITS = st.sampled_from(
    [
        "1,000", "1.5", "12:30", "1/0", "0/5", "½", "3 ½", "1 1/2", "²", "٣", "๑๒", "１２", "二千", "〇", "万", "삼백",
        "XIV", "ІХ", "pm", "p.m.", "午後", "s", "k", "M", "million", "mil", "tys.", "割", "ทุ่ม", "พันล้าน", "分の", "분의",
        " ", "\u00a0", "\u202f", "'", "-", "\n", "half", "meia", "\ud800", "\u200b", "9999999999", ":", "/", ".", ",",
        "(", ")", "`x 1`", "https://a.b/1", '{"a": 1}',
    ]
)  # fmt: skip
TEXTS = st.lists(BITS, max_size=12).map("".join)


@settings(deadline=None, max_examples=200)
@given(TEXTS, TEXTS, st.sampled_from(sorted(LANGUAGES)))
def test_any_text_can_be_read_and_agrees_with_itself(source: str, target: str, code: str) -> None:
    differences(TextPair(source, target, "eng", code))
    assert differences(TextPair(source, source, code, code)) == ([], [])


def test_endless_digits_are_no_number() -> None:
    for endless in ("7" * 5000, "一" * 5000, "²" * 5000, "1," * 3000):
        assert verdict("eng-jpn", endless, endless) is None
        verdict("eng-jpn", endless, "x")
