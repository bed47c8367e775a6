"""Eq. 5: which tokens are switched, how often, and how they look afterwards."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from scipy.stats import binomtest, chisquare

from sdrrl_nemo.common.seeding import named_random
from sdrrl_nemo.data.engines.base import Dictionary
from sdrrl_nemo.data.stages.code_switch import (
    SwitchDictionary,
    code_switch,
    first_pairs,
    invert,
    known_tokens,
    lookup_key,
    match_case,
    protected_parts,
)
from sdrrl_nemo.data.stages.synthesise import draws_y_hat

WORDS = {"house": ["casa"], "water": ["água", "aguar"], "don't": ["não"], "well-known": ["conhecido"]}


def switch_all(text: str, entries: dict[str, list[str]], code: str) -> str:
    return code_switch(text, entries, 1.0, random.Random(0), code=code)[0]


def test_probability_one_switches_every_known_token_and_nothing_else() -> None:
    text, replaced, found = code_switch(
        "The House has WATER; don’t  touch\twell-known (house)!", WORDS, 1.0, random.Random(0)
    )
    assert (replaced, found) == (5, 5)
    assert text in {f"The Casa has {w}; não  touch\tconhecido (casa)!" for w in ("ÁGUA", "AGUAR")}


def test_probability_zero_and_unknown_words_change_nothing() -> None:
    sentence = "A housekeeper waters the plants: house2house."
    assert code_switch(sentence, WORDS, 0.0, random.Random(0))[0] == sentence
    assert code_switch(sentence, WORDS, 1.0, random.Random(0)) == (sentence, 0, 0)


# (language of the text, text, dictionary, by hand with p = 1)
WORKED = [
    ("eng", "What is the capital of Japan?", {"capital": ["首都"], "japan": ["日本"]}, "What is the 首都 of 日本?"),
    ("eng", "I READ a Book daily.", {"read": ["อ่าน"], "book": ["หนังสือ"]}, "I อ่าน a หนังสือ daily."),
    ("eng", "Cats drink water.", {"water": ["ទឹក"], "cats": ["ឆ្មា"]}, "ឆ្មា drink ទឹក."),
    ("eng", "My teacher's book", {"teacher": ["선생님"], "book": ["책"]}, "My teacher's 책"),
    ("fra", "L'eau est dans la Maison.", {"maison": ["rumah"], "eau": ["air"]}, "L'eau est dans la Rumah."),
    ("por", "Onde fica a CASA amarela?", {"casa": ["house"], "onde": ["where"]}, "Where fica a HOUSE amarela?"),
    ("ces", "Kde je Kočka?", {"kočka": ["cat"], "kde": ["where"]}, "Where je Cat?"),
    ("ukr", "Мій комп’ютер і п'ять котів", {"комп'ютер": ["computer"], "п'ять": ["five"]}, "Мій computer і five котів"),
    ("fin", "Missä kissa on?", {"kissa": ["cat"]}, "Missä cat on?"),
    ("vie", "Con me\u0300o uống nước", {"mèo": ["cat"], "nước": ["water"]}, "Con cat uống water"),
    ("kor", "도서관에서 책을 읽었습니까?", {"도서관": ["library"], "책": ["book"]}, "library에서 book을 읽었습니까?"),
    ("kor", "학생들에게는 마을이 좋아요", {"학생": ["student"], "마": ["horse"]}, "student들에게는 마을이 좋아요"),
    ("kor", "나이는 몇 살입니까", {"나": ["I"], "나이": ["age"], "살": ["years"]}, "age는 몇 years입니까"),
    ("jpn", "私は図書館で本を読みます。", {"図書館": ["library"], "本": ["book"]}, "私はlibraryでbookを読みます。"),
    ("jpn", "人工知能とは何ですか", {"人工知能": ["artificial intelligence"], "知能": ["mind"]},
     "artificial intelligenceとは何ですか"),
    ("jpn", "日本経済を見る", {"日本": ["Japan"], "経済": ["economy"], "見る": ["see"]}, "Japan economyをsee"),
    ("tha", "ฉันชอบอ่านหนังสือ", {"ฉัน": ["I"], "ชอบ": ["like"], "หนังสือ": ["book"]}, "I like อ่าน book"),
    ("tha", "เขาไปห้องสมุดทุกวัน", {"ห้องสมุด": ["library"], "ห้อง": ["room"]}, "เขาไป library ทุกวัน"),
    ("khm", "ខ្ញុំចូលចិត្តអានសៀវភៅ។", {"អាន": ["read"], "សៀវភៅ": ["book"]}, "ខ្ញុំចូលចិត្ត read book។"),
    ("khm", "ឆ្មា\u200bនេះស្អាតណាស់", {"ឆ្មា": ["cat"], "ស្អាត": ["pretty"]}, "cat\u200bនេះ pretty ណាស់"),
    # words of two unspaced scripts touch as they did, whatever their languages
    ("tha", "ฉันอ่านหนังสือทุกวัน", {"หนังสือ": ["本"]}, "ฉันอ่าน本ทุกวัน"),
    ("jpn", "私は本を読む", {"本": ["หนังสือ"]}, "私はหนังสือを読む"),
    ("khm", "អានសៀវភៅ", {"សៀវភៅ": ["本"]}, "អាន本"),
    ("jpn", "iPhoneで写真を見る", {"iphone": ["電話"], "写真": ["photo"]}, "電話でphotoを見る"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "text", "entries", "expected"), WORKED)
def test_worked_by_hand(code: str, text: str, entries: dict[str, list[str]], expected: str) -> None:
    assert switch_all(text, entries, code) == expected


def test_letters_of_words_are_no_tokens() -> None:
    """An entry inside a longer word of an unspaced script is not found: แม (prefix of แมว), 京 in 東京."""
    assert switch_all("แมวน่ารัก", {"แม": ["mother"]}, "tha") == "แมวน่ารัก"
    assert switch_all("東京へ行く", {"京": ["capital"]}, "jpn") == "東京へ行く"


def test_protected_spans_are_neither_switched_nor_counted() -> None:
    text = "Run `print house` on https://house.example/water in the house."
    start, end = text.index("`"), text.index(" in the")
    spans = [(start, text.index(" on ")), (text.index("https"), end)]
    switched, replaced, found = code_switch(text, WORDS, 1.0, random.Random(0), protected=spans)
    assert switched == "Run `print house` on https://house.example/water in the casa."
    assert (replaced, found) == (1, 1)
    thai = "ไปห้องสมุด"
    assert code_switch(thai, {"ห้องสมุด": ["library"]}, 1.0, random.Random(0), code="tha", protected=[(6, 7)])[0] == thai


def test_a_run_is_of_at_most_four_words_that_touch() -> None:
    """人工|知能|人工|知能 is four words for ICU; with one more no entry is looked up as a whole."""
    four, five = "人工知能人工知能", "人工知能人工知能人工"
    assert invert({"x": [four]}, "jpn") == {four: ["x"]}
    assert switch_all(four, {four: ["x"]}, "jpn") == "x"
    assert invert({"x": [five]}, "jpn") == {}
    assert switch_all(five, {five: ["x"]}, "jpn") == five
    assert switch_all("人工 知能", {"人工 知能": ["x"], "人工知能": ["y"]}, "jpn") == "人工 知能"
    assert switch_all("well known", {"well known": ["x"]}, "eng") == "well known"


def test_words_that_only_partly_hold_a_protected_span_are_left_alone() -> None:
    for span, kept in (((0, 1), "house"), ((4, 5), "house"), ((5, 6), "casa"), ((0, 0), "casa")):
        found = code_switch("house water", {"house": ["casa"]}, 1.0, random.Random(0), protected=[span])[0]
        assert found == f"{kept} water", span


def test_a_space_is_put_only_between_letters() -> None:
    cat = {"แมว": ["cat"], "หมา": ["dog"]}
    assert switch_all("(แมว)", cat, "tha") == "(cat)"
    assert switch_all("แมว หมา", cat, "tha") == "cat dog"
    assert switch_all("แมวหมา", cat, "tha") == "cat dog"
    assert switch_all("แมว5", cat, "tha") == "cat 5"
    assert switch_all("猫", {"猫": ["cat"]}, "jpn") == "cat"
    assert switch_all("猫が", {"猫": ["!"]}, "jpn") == "!が"


def test_entries_are_found_as_they_are_written_too() -> None:
    """A dictionary made by hand may have capitals in its keys."""
    assert switch_all("Big", {"Big": ["Grande"]}, "eng") == "Grande"
    assert switch_all("big", {"Big": ["Grande"]}, "eng") == "big"
    assert switch_all("Big", {"big": ["pequeno"], "Big": ["Grande"]}, "eng") == "Pequeno"


def test_translations_without_a_word_are_no_entries() -> None:
    assert invert({"wow": ["!"], "dots": ["..."], "so": ["tão!"], "yes": ["sim"]}, "por") == {"sim": ["yes"]}


def test_case() -> None:
    assert match_case("Water", "água") == "Água"
    assert match_case("WATER", "água") == "ÁGUA"
    assert match_case("I", "eu") == "Eu"
    assert match_case("water", "Wasser") == "Wasser"
    assert match_case("水", "water") == "water"
    assert lookup_key("Don’t") == "don't"


def test_inverse_dictionary() -> None:
    inverse = invert({"house": ["casa", "lar"], "home": ["casa", "em casa"], "Big": ["Grande"]}, "por")
    assert inverse == {"casa": ["home", "house"], "grande": ["Big"], "lar": ["house"]}


def test_inverse_dictionary_of_unspaced_scripts() -> None:
    thai = invert({"library": ["ห้องสมุด"], "book": ["หนังสือ", "จอง"], "to read": ["อ่าน หนังสือ"]}, "tha")
    assert thai == {"จอง": ["book"], "ห้องสมุด": ["library"], "หนังสือ": ["book"]}
    japanese = invert({"AI": ["人工知能"], "read": ["読む、", "読む"]}, "jpn")
    assert japanese == {"人工知能": ["AI"], "読む": ["read"]}
    assert switch_all("人工知能", japanese, "jpn") == "AI"


def test_rate_is_p_within_a_binomial_interval() -> None:
    """Rows of their own seeds, 24,000 known tokens: the exact 99.9% interval of the share holds p = 0.15."""
    replaced = found = 0
    for row in range(3000):
        rng = named_random(1234, "code-switch", "LL", f"row{row}", "y")
        _, r, f = code_switch("The house has water, house water house water water house.", WORDS, 0.15, rng)
        replaced, found = replaced + r, found + f
    assert found == 3000 * 8
    interval = binomtest(replaced, found).proportion_ci(0.999)
    assert interval.low < 0.15 < interval.high
    assert interval.high - interval.low < 0.016  # narrow enough to tell 0.15 from 0.14 and 0.16


@pytest.mark.parametrize(("code", "word"), [("eng", "water"), ("tha", "หนังสือ"), ("khm", "សៀវភៅ"), ("kor", "책을")])
def test_choice_among_translations_is_uniform(code: str, word: str) -> None:
    choices = ["alpha", "beta", "gamma", "delta", "epsilon"]
    entries = {word.rstrip("을") if code == "kor" else word: choices}
    text, replaced, found = code_switch(f"{word} " * 20_000, entries, 0.15, random.Random(7), code=code)
    assert found == 20_000
    counts = Counter(part.rstrip("을") for part in text.split())
    seen = [counts[c] for c in choices]
    assert sum(seen) == replaced
    assert chisquare(seen).pvalue > 0.001


def test_draws_of_neighbouring_tokens_are_independent() -> None:
    """Pairs (this token switched, the next switched): a chi-square over the four cells of 20,000 pairs."""
    p, cells = 0.15, Counter[tuple[bool, bool]]()
    for row in range(20_000):
        text = code_switch("house house", {"house": ["casa"]}, p, named_random(9, "code-switch", row))[0]
        first, second = (word == "casa" for word in text.split())
        cells[first, second] += 1
    order = [(a, b) for a in (True, False) for b in (True, False)]
    expected = [20_000 * (p if a else 1 - p) * (p if b else 1 - p) for a, b in order]
    assert chisquare([cells[c] for c in order], expected).pvalue > 0.001


def test_rows_are_switched_alike_in_any_order() -> None:
    """A row's draws follow from its own seed, so nothing that was switched before it matters."""

    def switch(i: int) -> str:
        rng = named_random(1234, "code-switch", "LL", f"q{i}", "y")
        return code_switch("The house has water. " * 3, WORDS, 0.15, rng)[0]

    rows = list(range(200))
    whole = {i: switch(i) for i in rows}
    assert {i: switch(i) for i in random.Random(3).sample(rows, len(rows))} == whole
    assert len(set(whole.values())) > 10


def test_known_tokens_says_where() -> None:
    tokens = list(known_tokens("도서관에서 책", {"도서관": ["library"], "책": ["book"]}, "kor"))
    assert [(t.start, t.end, t.particle) for t in tokens] == [(0, 3, True), (6, 7, False)]


def test_protected_parts_are_inline_code_urls_and_template_lines() -> None:
    text = "Is `water` in www.house.com?\nAnswer in Thai."
    kept = [text[a:b] for a, b in protected_parts(text)]
    assert "`water`" in kept and "www.house.com" in kept and "Answer in Thai." in kept
    assert (
        code_switch(text, {**WORDS, "answer": ["ตอบ"]}, 1.0, random.Random(0), protected=protected_parts(text))[1] == 0
    )


def test_y_and_y_hat_are_drawn_alike() -> None:
    """Eq. 4: one half each, 20,000 keys, exact 99.9% interval; the draw depends on seed and key alone."""
    keys = [f"{i:016x}" for i in range(20_000)]
    draws = {key: draws_y_hat(1234, key) for key in keys}
    interval = binomtest(sum(draws.values()), len(keys)).proportion_ci(0.999)
    assert interval.low < 0.5 < interval.high
    assert interval.high - interval.low < 0.025
    shuffled = random.Random(1).sample(keys, len(keys))
    assert {key: draws_y_hat(1234, key) for key in shuffled} == draws
    other = [draws_y_hat(1235, key) for key in keys]
    same = sum(a == b for a, b in zip(draws.values(), other, strict=True))
    agreement = binomtest(same, len(keys)).proportion_ci(0.999)
    assert agreement.low < 0.5 < agreement.high  # another seed, an independent draw


def test_only_the_first_pairs_of_a_dictionary() -> None:
    """mRASP reads the first 2,000 lines of a file: words and translations are counted, not words."""
    entries = {"cat": ["gato", "gata"], "dog": ["cão"], "sun": ["sol"]}
    assert first_pairs(entries, 2) == {"cat": ["gato", "gata"]}
    assert first_pairs(entries, 3) == {"cat": ["gato", "gata"], "dog": ["cão"]}
    assert first_pairs(entries, 1) == {"cat": ["gato"]}
    assert first_pairs(entries, 9) == entries

    class Fixed(Dictionary):
        def entries(self, source: str, target: str) -> dict[str, list[str]]:
            return entries

    capped, whole = (SwitchDictionary(Fixed(), {}, ("eng", "por"), "inverse", most) for most in (1, None))
    assert capped.entries("eng") == {"cat": ["gato"]}
    assert capped.entries("por") == {"gato": ["cat"]}
    assert len(whole.entries("por")) == 4
    assert capped.identity != whole.identity == ["Fixed", {}, "inverse", "eng", "por"]
