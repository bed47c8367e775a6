"""Which questions are the same: `folded` keeps what carries meaning and drops what carries none."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdrrl_nemo.data.filters.duplicates import folded

DIFFERENT = [
    ("How do I sort a list in C++?", "How do I sort a list in C#?"),
    ("How do I sort a list in C++?", "How do I sort a list in C?"),
    ("What is 12 + 4?", "What is 12 − 4?"),
    ("What is 12 × 4?", "What is 12 ÷ 4?"),
    ("Is x < y?", "Is x > y?"),
    ("Is x <= y?", "Is x < y?"),
    ("It costs $5", "It costs €5"),
    ("It costs £5", "It costs 5"),
    ("Round 3.14", "Round 314"),
    ("Add -5", "Add 5"),
    ("What is node.js?", "What is nodejs?"),
    ("What is 5!?", "What is 5?"),
    ("Compute n!", "Compute n"),
    ("Compute 10²", "Compute 102"),
    ("Is ½ enough?", "Is 1⁄2 + 1 enough?"),
    ("Solve for x.", "Solve for X."),
    ("How far do 5 mW reach?", "How far do 5 MW reach?"),
    ("Send 5 Gb", "Send 5 GB"),
    ("List 1, 2", "List 12"),
    ("Explain 1,5", "Explain 15"),
    ("What is 50% of it?", "What is 50 of it?"),
    ("Run `Print(x)` now", "Run `print(x)` now"),
    ("Open https://a.org/B", "Open https://a.org/b"),
    ("Use #tag", "Use tag"),
    ("Mail @ann", "Mail ann"),
    ("a & b", "a | b"),
    ("2^3", "23"),
    ("What is A∩B?", "What is A∪B?"),
    ("Is ℝ closed?", "Is R closed?"),
    ("What does it's mean?", "What does its mean?"),
    ("Describe 👍", "Describe 👎"),
    ('Explain {"a": 1}', 'Explain {"A": 1}'),
    ("12:30", "1230"),
    ("and/or", "and or"),
    ("3~4", "34"),
    ("5° C", "5 C"),
]

SAME = [
    ("What is AI?", "what is ai"),
    ("What is AI?", "What  is\tAI ?"),
    ("Explain “love”.", 'explain "love"'),
    ("Explain «love»", "Explain 'love'"),
    ("It’s late.", "it's late"),
    ("12 - 4", "12 − 4"),
    ("2010–2020", "2010-2020"),
    ("Ｗｈａｔ ｉｓ ＡＩ？", "What is AI?"),
    ("ﬁnd it", "find it"),
    ("Stop… now", "Stop... now"),
    ("Say hello!", "Say hello."),
    ("Bảo tàng", "Ba\u0309o ta\u0300ng"),
    ("9 โมงเช้า", "๙ โมงเช้า"),
    ("exam\u00adple\u200b text\ufeff", "example text"),
    ("はい。いいえ。", "はい いいえ"),
    ("Первая строка. Вторая", "ПЕРВАЯ СТРОКА.  ВТОРАЯ."),
    ("¿Qué es?", "qué es"),
    ("The museum is open.\nIt closes.", "the museum is open. it closes"),
]


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_what_carries_meaning_is_kept(first: str, second: str) -> None:
    assert folded(first) != folded(second)


@pytest.mark.parametrize(("first", "second"), SAME)
def test_what_means_nothing_is_folded(first: str, second: str) -> None:
    assert folded(first) == folded(second)


TEXTS = st.text(st.sampled_from(" ab.,!?'\"“”-−+<>=#$€%3AéЯ猫ก`²/\n\u200b…"), max_size=40)
MEANINGFUL = st.sampled_from("+−×÷=<>#$€£%^&|@~/*\\²½°§∩")
WORDS = st.lists(st.sampled_from(["alpha", "beta", "казка", "猫", "été", "7"]), min_size=1, max_size=5).map(" ".join)


@given(WORDS, MEANINGFUL, WORDS)
def test_a_sign_that_carries_meaning_never_goes(before: str, sign: str, after: str) -> None:
    assert folded(f"{before} {sign} {after}") != folded(f"{before} {after}")


@given(WORDS, MEANINGFUL, MEANINGFUL, WORDS)
def test_two_such_signs_are_two(before: str, first: str, second: str, after: str) -> None:
    alike = folded(f"{before} {first} {after}") == folded(f"{before} {second} {after}")
    assert alike == (first == second)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["{} apples", "v{}.5", "-{}", "x{}"]))
def test_numbers_are_kept(a: int, b: int, form: str) -> None:
    assert (folded(form.format(a)) == folded(form.format(b))) == (a == b)


@given(WORDS.filter(lambda text: "7" not in text))
def test_case_spaces_and_stops_of_plain_words_go(text: str) -> None:
    """A short word behind a number may be a unit, and keeps its case."""
    words = [word.title() for word in text.split()]
    assert folded(f"  {'   '.join(words)} .") == folded(text) == folded(unicodedata.normalize("NFD", text))


@given(TEXTS)
def test_any_text_can_be_folded(text: str) -> None:
    assert isinstance(folded(text), str)
