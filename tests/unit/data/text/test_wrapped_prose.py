"""Prose over several lines, sentences without capitals and in brackets, characters that no reader sees."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_nemo.data.engines.base import Translator
from sdrrl_nemo.data.engines.segmented_translator import SegmentedTranslator
from sdrrl_nemo.data.text.segmentation import protect, split_sentences
from sdrrl_nemo.data.text.segmentation.invisible import visible

LONG = (
    "The old lighthouse stood on a rock far out in the bay, and nobody had lit its lamp for more than thirty years. "
    "Every autumn the fishermen of New York repainted its door, because their grandfathers had promised to do so, and "
    "nobody wanted to be the first to forget."
)


class Upper(Translator):
    """Gives each line in capitals and remembers what it was asked."""

    identity = "upper/1"

    def __init__(self, words: str = "") -> None:
        self.asked: list[str] = []
        self.words = words

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        self.asked += texts
        return [self.words or text.upper() for text in texts]


@pytest.mark.parametrize("width", [70, 72, 76, 80])
@pytest.mark.parametrize(("first", "later"), [("", ""), ("> ", "> "), ("- ", "  "), ("1. ", "   ")])
def test_wrapped_prose_is_translated_by_sentence(width: int, first: str, later: str) -> None:
    wrapped = textwrap.fill(LONG, width, initial_indent=first, subsequent_indent=later)
    assert protect(wrapped).segments == protect(LONG).segments
    engine = Upper()
    assert SegmentedTranslator(engine).translate([wrapped], "eng", "por") == [wrapped.upper()]
    assert all("\n" not in line and "  " not in line for line in engine.asked)


def test_the_lines_of_a_translation_are_as_many_and_about_as_long() -> None:
    wrapped = textwrap.fill(LONG, 72)
    out = SegmentedTranslator(
        Upper("uma frase que é um pouco mais longa do que a outra e tem muitas palavras curtas")
    ).translate([wrapped], "eng", "por")[0]
    lines = out.split("\n")
    assert len(lines) == wrapped.count("\n") + 1
    assert all(line == line.strip() and len(line) > 10 for line in lines)
    thai = Upper("ประภาคารเก่าตั้งอยู่บนโขดหินกลางอ่าวและไม่มีใครจุดไฟมานานกว่าสามสิบปี")
    out = SegmentedTranslator(thai).translate([wrapped], "eng", "tha")[0]
    assert out.count("\n") == wrapped.count("\n")


@pytest.mark.parametrize(
    "text",
    [
        "Roses are red,\nviolets are blue.",  # short lines
        # verse: a capital in every line, or behind a comma
        "Shall I compare thee to a summer's day of sunshine and of rain,\nThou art more lovely and more temperate",
        "The curfew tolls the knell of parting day, as it was told of old\nThe lowing herd wind slowly over the lea\n"
        "The ploughman homeward plods his weary way and goes",
        # a line that leaves room for the next word
        "The first of the two lines here ends well before the margin\n"
        "and so the next one, which is by far the longest of the two, is new",
        "# A heading that is long enough to look like the line of a wrapped text here\nand the text below it.",
        "This line ends with two spaces, which make a break that is meant to be  \nthere in the text.",
        "A sentence that is long enough to be taken for a line of wrapped prose ends.\nand another one begins.",
        "Take these things with you, since the way is long and the nights are cold:\nbread\nwater",
        "| This is a row of a table that is long enough to be a line of wrapped | prose |\n| and | one |",
    ],
)
def test_other_line_breaks_are_borders(text: str) -> None:
    for segment in protect(text).segments:
        assert segment in text


def test_a_span_in_wrapped_prose_keeps_its_place() -> None:
    text = textwrap.fill(
        f"Please open `the file  a.txt` and look for the word, {LONG} See https://a.org/b c.",
        74,
        break_long_words=False,
    )
    out = SegmentedTranslator(Upper()).translate([text], "eng", "por")[0]
    assert "https://a.org/b" in out and out.count("\n") == text.count("\n")
    assert protect(text).restore(protect(text).segments) == text


def test_hyphens_and_ideographs_are_joined_without_a_space() -> None:
    first = "It is about the one thing in this town that everybody knows, a well-"
    assert protect(f"{first}\nknown house by the river.").segments == [f"{first}known house by the river."]
    japanese = "昔々あるところにおじいさんとおばあさんが住んでいましたそしておじいさんは毎日山へ"
    assert protect(f"{japanese}\n芝刈りに行きました。", "jpn").segments == [f"{japanese}芝刈りに行きました。"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("use git first. then push it. it works.", ["use git first.", "then push it.", "it works."]),
        ("iPhones are good. eBay is not. npm works.", ["iPhones are good.", "eBay is not.", "npm works."]),
        ("First. (Second one. Third one.) Fourth.", ["First.", "Second one.", "Third one.", "Fourth."]),
        ("(See the first page. It is long.)", ["See the first page.", "It is long."]),
        ("[Note: this is it. Read on.] Then go.", ["Note: this is it.", "Read on.", "Then go."]),
        # no borders
        ("It was approx. three metres, e.g. this one, etc. and so on.", None),
        ("He left (she stayed. they talked.) and so on.", None),
        ("Ask dr. smith or prof. jones at 5 p.m. today.", None),
        ("Well... maybe not today.", None),
        ("It happened on the 5. of may and on no. 7 too.", None),
    ],
)
def test_small_letters_and_brackets(text: str, expected: list[str] | None) -> None:
    assert protect(text).segments == (expected or [text])
    assert "".join(split_sentences(text, "eng")) == text


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("por", "Ver p. ex. a pág. três, etc. e tal."),
        ("ces", "Např. tak, popř. jinak, atd. a podobně."),
        ("ukr", "Див. рис. п'ять, вул. широка та ін. речі."),
        ("pol", "Np. tak, itd. i tym podobne, ul. długa."),
        ("dan", "Det er fx. sådan, bl.a. her, osv. og så videre."),
    ],
)
def test_abbreviations_of_other_languages_end_no_sentence(code: str, text: str) -> None:
    assert split_sentences(text, code) == [text]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\ufeffHel\u200blo, wo\u00adrld\u200e.", "Hello, world."),
        ("\u202bThis\u202c is right.\u2069", "This is right."),
        ("می\u200cخواهم بروم.", "می\u200cخواهم بروم."),  # Persian needs its joiner
        ("नमस्\u200dते दुनिया।", "नमस्\u200dते दुनिया।"),
        ("ខ្ញុំ\u200bអាន\u200bសៀវភៅ", "ខ្ញុំ\u200bអាន\u200bសៀវភៅ"),  # Khmer puts it between words
        ("a\u200db c", "ab c"),
    ],
)
def test_a_translator_sees_no_invisible_characters_but_those_a_script_needs(text: str, seen: str) -> None:
    assert protect(text).segments == [seen]
    assert protect(text).restore([seen]) == text  # what comes back as it went is the text's own
    assert visible(text) == seen


def test_emoji_keep_their_joiners() -> None:
    text = "Hi 👨\u200d👩\u200d👧 there"
    assert visible(text) == text
    assert SegmentedTranslator(Upper()).translate([text], "eng", "por") == ["HI 👨\u200d👩\u200d👧 THERE"]


WORD = st.sampled_from(
    [
        "a",
        "of",
        "lighthouse",
        "New",
        "York,",
        "`x y`",
        "https://a.b/c",
        "猫",
        "end.",
        "ok",
        "wo\u00adrd",
        "(see",
        "it)",
        "«no»",
    ]
)


@settings(deadline=None, max_examples=150)
@given(st.lists(WORD, min_size=1, max_size=80), st.integers(50, 90), st.sampled_from(["", "> ", "  "]))
def test_any_wrapped_text_comes_back(words: list[str], width: int, indent: str) -> None:
    text = textwrap.fill(
        " ".join(words), width, initial_indent=indent, subsequent_indent=indent, break_long_words=False
    )
    found = protect(text)
    assert found.restore(found.segments) == text
    short = protect(text, "eng", 40)
    assert short.restore(short.segments) == text and all(len(s) <= 40 for s in short.segments)
    out = SegmentedTranslator(Upper()).translate([text], "eng", "por")[0]
    assert out.count("\n") == text.count("\n")
