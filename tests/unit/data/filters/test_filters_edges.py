"""Filters at their thresholds, on texts that are empty, and their defaults."""

from __future__ import annotations

from typing import Any

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.filters import FILTERS, TextPair, make_filters


def reason(name: str, source: str, target: str, languages: str = "eng-por", **options: Any) -> str | None:
    return FILTERS.create(name, **options).reject(TextPair(source, target, *languages.split("-")))


FOX = "The fox jumps over the lazy dog near the river."
CAT = "The cat drinks milk."

# (filter, source, target, languages, part of the reason or None)
EDGES: list[tuple[str, str, str, str, str | None]] = [
    # repetition: n-grams of 4, share over 0.3 of at least 8
    ("repetition", "", "a b c d a b c d a b c", "eng-por", "0.50 of 4-grams repeat"),
    ("repetition", "", "a b c d a b c d a b", "eng-por", None),  # 7 are too few to tell
    ("repetition", "", "a b c d e f g a b c d e f g", "eng-por", "0.36 of 4-grams repeat"),
    # repeated_characters: more than 10 in a row, and more than the source has; white space is code or layout
    ("repeated_characters", "", f"if x:\n{' ' * 11}y = 1", "eng-por", None),
    ("repeated_characters", "", "simmmmmmmmmm!!!", "eng-por", None),  # 10 m
    ("repeated_characters", "", "aa simmmmmmmmmmm b", "eng-por", "'m' 11 times"),
    ("repeated_characters", "a ___________", "um ____________", "eng-por", "'_' 12 times"),
    ("repeated_characters", "a ____________", "um ____________", "eng-por", None),
    ("repeated_characters", "no ____________", "no ____________", "por-por", "'_' 12 times"),  # judged alone
    # repeated_sentences: one of 6 characters or more, more than twice
    ("repeated_sentences", CAT, "O gato bebe leite. " * 3 + "Depois ele dorme.", "eng-por", "stands 3 times"),
    ("repeated_sentences", CAT, "Depois ele dorme. " + "O gato bebe leite. " * 2, "eng-por", None),
    ("repeated_sentences", CAT, "Textos. " * 3, "eng-por", "stands 3 times"),
    ("repeated_sentences", CAT, "Ótimo. Bom. " + "Chove. " * 2 + "Bem. " * 3, "eng-por", None),  # 3 characters
    ("repeated_sentences", "Go there now. " * 3 + "Stay.", "Vai para lá. " * 3 + "Fica.", "eng-por", None),
    ("repeated_sentences", "Go there now. " * 3, "Vai para lá. " * 4, "eng-por", "stands 4 times"),
    ("repeated_sentences", "Vai para lá. " * 3, "Vai para lá. " * 3, "por-por", "stands 3 times"),  # judged alone
    # control: letters of UTF-8 read as Windows-1252, early, with harmless quotes later
    ("control", CAT, "Ele diz que nÃ£o, “sim”… e “talvez”…", "eng-por", "about 1 wrongly decoded"),
    ("control", CAT, "nÃ£o “sim”… nÃ£o", "eng-por", "about 2 wrongly decoded"),
    ("control", CAT, "ÁÁ".encode().decode("latin-1"), "eng-por", "2 control or broken characters and about 2 wrongly"),
    ("control", CAT, "гд".encode().decode("cp1252"), "eng-ukr", "0 control or broken characters and about 2 wrongly"),
    ("control", CAT, "猫は".encode().decode("latin-1"), "eng-jpn", "about 3 wrongly decoded"),
    ("control", CAT, "“Sim”… – é à «não»\t\r\n", "eng-por", None),
    # markup: one tag or entity more than the source has
    ("markup", "<b>a</b>", "<b>a</b>", "por-por", "2 tags or entities added ['</b>', '<b>']"),  # judged alone
    ("markup", "<b>x</b>", "<b>y</b>", "eng-por", None),
    ("markup", "<b>x</b>", "<b>y</b> &amp;", "eng-por", "1 tags or entities added ['&amp;'], more than 0"),
    # punctuation: one apart passes, two do not
    ("punctuation", "Who? When?", "Quem? Quando", "eng-por", None),
    ("punctuation", "Who? When?", "Quem. Quando", "eng-por", "0 question marks for 2, more than 1 apart"),
    ("punctuation", "a", "a (b)", "eng-por", None),
    ("punctuation", "a", "a (b) [c]", "eng-por", "2 opening brackets for 0"),
    ("punctuation", "a\nb", "a b", "eng-por", None),
    ("punctuation", "\n\na\nb\n", "a\nb\n\n\n", "eng-por", None),  # lines around the text are no lines of it
    ("punctuation", "Who? When? Where?", "誰、いつ、どこ", "eng-jpn", None),
    ("punctuation", "誰？いつ？", "Who. When.", "jpn-eng", "0 question marks for 2"),
    *[
        ("punctuation", source, "Who? When? Where?", f"{code}-eng", None)
        for code, source in (("jpn", "誰か。いつか。どこか。"), ("tha", "ใคร เมื่อไร ที่ไหน"), ("khm", "នរណា ពេលណា ឯណា"))
    ],
    # numbers: none lost, one made up
    ("numbers", "In 5 days", "Em dias", "eng-por", "1 numbers lost ['5'], 0 added []"),
    ("numbers", "In spring", "Em 5", "eng-por", None),
    ("numbers", "In spring", "Em 5 ou 6", "eng-por", "0 numbers lost [], 2 added ['5', '6']"),
    ("numbers", "1 2 3 4 5 6 7", "x", "eng-por", "7 numbers lost ['1', '2', '3', '4', '5'], 0 added"),
    ("numbers", "5 and 5", "5", "eng-por", "1 numbers lost ['5']"),
    # urls: none lost, none made up
    ("urls", "a.b@c.de or www.x.org", "www.x.org", "eng-por", "1 addresses lost ['a.b@c.de'], 0 added []"),
    ("urls", "www.x.org", "www.x.org www.y.org", "eng-por", "0 addresses lost [], 1 added ['www.y.org']"),
    ("urls", "(see www.x.org!)", "www.x.org.", "eng-por", None),
    # script: share of the letters under 0.6, of at least 4 letters; addresses are of no language
    ("script", "x", "дом ab", "eng-por", "0.40 of the letters"),
    ("script", "x", "дом abc ab 12", "eng-por", None),  # 5 of 8
    ("script", "x", "да abc", "eng-por", None),  # exactly 0.6
    ("script", "x", "дом", "eng-por", None),  # 3 letters
    ("script", "x", "дома", "eng-por", "0.00 of the letters"),
    ("script", "x", "дома https://example.org/some/long/path", "eng-por", "0.00 of the letters"),
    # character_ratio: letters a quarter fewer than in the source, in 8 characters or more
    ("character_ratio", "abc", "abcdef12", "eng-por", None),
    ("character_ratio", "abc", "abcde123", "eng-por", "0.62 of the characters are letters for 1.00, a loss over 0.25"),
    ("character_ratio", "abc", "abcd123", "eng-por", None),
    ("character_ratio", "ab12", "abcd1234", "eng-por", None),
    # copy: over 0.6 of the words, of at least 4, numbers left out
    ("copy", "one two three x", "one two three quatro cinco", "eng-por", None),
    ("copy", "one two three four", "one two three four cinco", "eng-por", "0.80 of the words are the source's"),
    ("copy", "one two three", "one two three", "eng-por", None),
    ("copy", "one two three four", "ONE two three four 5 6 7", "eng-por", "1.00 of the words"),
    ("copy", "one one", "one one one one", "eng-por", None),  # each word of the source counts once
    # length: 1 to 20,000 characters, without the space around them
    ("length", "x", " ", "eng-por", "0 characters, not 1 to 20000"),
    ("length", "x", " a ", "eng-por", None),
    ("length", "x", "a" * 20_000 + " ", "eng-por", None),
    ("length", "x", "a" * 20_001, "eng-por", "20001 characters"),
    # code: not one piece with a sign of code may be lost
    ("code", "Run `ls -a`, then `Save`.", "Execute `ls -a`, depois `Salvar`.", "eng-por", None),
    ("code", "Run `ls -a`.", "Execute `ls -l`.", "eng-por", "1 pieces of code lost or changed ['ls -a']"),
    # length_ratio: half to twice the width, 15 of difference always pass
    ("length_ratio", "a" * 100, "a" * 50, "eng-por", None),
    ("length_ratio", "a" * 100, "a" * 49, "eng-por", "width 49 for 100: 0.49 times the source's, not 0.5 to 2"),
    ("length_ratio", "a" * 50, "a" * 100, "eng-por", None),
    ("length_ratio", "a" * 50, "a" * 101, "eng-por", "2.02 times"),
    ("length_ratio", "a" * 10, "a" * 25, "eng-por", None),
    ("length_ratio", "a" * 10, "a" * 26, "eng-por", "2.60 times"),
    ("length_ratio", "a" * 25, "a" * 10, "eng-por", None),
    ("length_ratio", "a" * 26, "a" * 10, "eng-por", "0.38 times"),
    ("length_ratio", " ", "a" * 16, "eng-por", "width 16 for 0: the source is empty"),
    ("length_ratio", "a" * 50 + " " * 60, "a" * 100, "eng-por", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "source", "target", "languages", "expected"), EDGES)
def test_at_the_threshold(name: str, source: str, target: str, languages: str, expected: str | None) -> None:
    found = reason(name, source, target, languages)
    assert found is None if expected is None else found is not None and expected in found, found


def test_every_filter_has_its_threshold_tried_from_both_sides() -> None:
    for name in set(FILTERS) - {"echo"}:  # it looks at the question too: test_filters.py
        assert {expected is None for n, _, _, _, expected in EDGES if n == name} == {True, False}, name


@pytest.mark.parametrize("text", ["", " ", "\n \t"])
@pytest.mark.parametrize("name", sorted(FILTERS))
def test_empty_texts_are_judged_like_others(name: str, text: str) -> None:
    """A source or a target without a letter is no reason to crash; only a length is to blame for it."""
    for code in ("por", "jpn", "tha"):
        assert reason(name, text, text, f"eng-{code}") is None or name == "length"
        assert reason(name, text, "Sim, claro.", f"eng-{code}") is None or name == "script"
        assert reason(name, "Yes, of course.", text, f"eng-{code}") is None or name == "length"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *[
            (name, {option: value}, f"filters: {name}: {option} {value} is not between 0 and 1")
            for name, option in (
                ("repetition", "maximum"),
                ("copy", "maximum"),
                ("script", "minimum"),
                ("character_ratio", "maximum_loss"),
            )
            for value in (1.5, -0.1)
        ],
        ("repetition", {"n": 0}, "n 0 is too small, it must be at least 1"),
        ("length", {"minimum": 3, "maximum": 2}, "minimum 3 and maximum 2 must be in order and at least 0"),
        ("length", {"minimum": -1}, "must be in order and at least 0"),
        ("length_ratio", {"minimum": 2.5}, "minimum 2.5 and maximum 2.0"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(SdrrlError, match=message):
        make_filters([(name, options)])


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize(
    ("name", "option"),
    [("repetition", "maximum"), ("copy", "maximum"), ("script", "minimum"), ("character_ratio", "maximum_loss")],
)
def test_none_and_all_are_shares(name: str, option: str, value: float) -> None:
    (made,) = make_filters([(name, {option: value})]).values()
    assert getattr(made, option) == value


def test_equal_bounds_and_n_of_one() -> None:
    assert reason("length", "x", "abc", minimum=3, maximum=3) is None
    assert reason("length", "x", "abcd", minimum=3, maximum=3) == "4 characters, not 3 to 3"
    assert reason("repetition", "x", "um dois três um", n=1, min_ngrams=4, maximum=0.2) == (
        "0.25 of 1-grams repeat, more than 0.20"
    )
    assert reason("repetition", "x", "um dois três um", n=1, min_ngrams=4, maximum=0.25) is None


def test_longest_word_is_of_spaced_scripts_alone() -> None:
    assert reason("length", "x", "um abcdefghij", longest_word=10) is None
    assert reason("length", "x", "abcdefghijk um", longest_word=10) == "a word of 11 characters, more than 10"
    assert reason("length", "x", "人工知能人工知能人工知能", "eng-jpn", longest_word=1) is None
    assert reason("length", "x", "人工知能 gnome", "eng-jpn", longest_word=4) == "a word of 5 characters, more than 4"


@pytest.mark.parametrize(
    ("unit", "figure"), [("width", "width 39 for 9"), ("characters", "characters 39 for 9"), ("words", None)]
)
def test_units_of_the_length_ratio(unit: str, figure: str | None) -> None:
    found = reason("length_ratio", "a b c d e", " ".join(["abcdefg"] * 5) + " ", unit=unit, slack=0, maximum=4.0)
    assert (found or "").startswith(figure or "") and (found is None) == (figure is None)


def test_widths_of_ideographs_count_two_in_width_and_one_in_characters() -> None:
    assert reason("length_ratio", "a" * 10, "日" * 10, "eng-jpn", slack=0) is None
    assert reason("length_ratio", "a" * 10, "日" * 11, "eng-jpn", slack=0) is not None
    assert reason("length_ratio", "a" * 10, "日" * 11, "eng-jpn", slack=0, unit="characters") is None
