"""Belebele's accuracy against lm-evaluation-harness' (tests/data/scorers/belebele.json), and generated letters."""

from __future__ import annotations

import json
import math

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.languages import PAPER_LANGUAGES
from sdrrl_nemo.eval.scorers import belebele
from tests.launch import ROOT

CASES = json.loads((ROOT / "tests/data/scorers/belebele.json").read_text(encoding="utf-8"))["cases"]
NORMS: list[tuple[str, belebele.Norm]] = [("acc", "none"), ("acc_norm", "characters"), ("acc_bytes", "bytes")]


def test_every_case_equals_lm_evaluation_harness() -> None:
    assert len(CASES) >= 200
    assert {c["lang"] for c in CASES} == set(PAPER_LANGUAGES)
    for case in CASES:
        for metric, norm in NORMS:
            letters = belebele.score_item(case["letters"], case["correct"], norm=norm)
            full = belebele.score_item(case["full"], case["correct"], case["answers"], norm)
            assert letters.score == case["letters_expected"][metric], case
            assert full.score == case["full_expected"][metric], case


@pytest.mark.parametrize(("metric", "norm"), NORMS)
def test_the_accuracy_is_the_mean(metric: str, norm: belebele.Norm) -> None:
    judged = [belebele.score_item(c["full"], c["correct"], c["answers"], norm) for c in CASES]
    expected = 100 * sum(c["full_expected"][metric] for c in CASES) / len(CASES)
    assert belebele.corpus_score(judged) == belebele.Accuracy(pytest.approx(expected), len(CASES), 0)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" (C)", "C"),
        ("D. Because the passage says so", "D"),
        ("**A**", "A"),
        ("A) Lisbon\n\nB is wrong", "A"),
        ("The answer is (b).", "B"),
        ("The correct choice: C", "C"),
        ("Answer: D", "D"),
        ("답은 (B)입니다", "B"),
        ("答えは(C)です。", "C"),
        ("A、なぜなら", "A"),
        ("B because it says so", "B"),
        ("（Ｄ）", None),
        ("（D）", "D"),
        ("C’est la ville", None),
        ("D'accord", None),
        ("A'nın", None),
        ("f(a) is B", None),
        ("คำตอบคือ [D]", "D"),
        ("(A) or (B)", None),
        ("A man walked in", None),
        ("Dogs", None),
        ("I think it is Lisbon", None),
        ("", None),
        ("b", None),
        ("E", None),
        ("(A) Lisbon (A)", "A"),
        ("The answer isn't a secret", None),
        ("The answer is a city", None),
    ],
)
def test_letters_in_generated_answers(text: str, letter: str | None) -> None:
    expected = None if letter is None else belebele.LETTERS.index(letter)
    assert belebele.extract_letter(text) == expected


def test_no_answer_is_wrong_and_counted() -> None:
    judged = [belebele.score_generated(text, 1) for text in ("(B)", "(A)", "no idea", "B.")]
    assert belebele.corpus_score(judged) == belebele.Accuracy(50.0, 4, 1)
    assert math.isnan(belebele.corpus_score([]).accuracy)


@pytest.mark.parametrize(
    ("scores", "choices", "norm", "picked"),
    [
        ([-1.0, -1.0, -2.0, -1.0], "ABCD", "none", 0),  # of equal ones the first
        ([-3.0, -2.0, -2.0, -5.0], "ABCD", "none", 1),
        ([-4.0, -6.0], ("ab", "abcd"), "characters", 1),
        ([-4.0, -6.0], ("ab", "abcd"), "none", 0),
        ([-6.0, -6.0], ("né", "abc"), "characters", 1),
        ([-6.0, -6.0], ("né", "ab"), "bytes", 0),  # é is two bytes
        ([-math.inf, -1.0], ("a", "b"), "none", 1),
    ],
)
def test_the_likeliest_choice_is_picked(
    scores: list[float], choices: tuple[str, ...], norm: belebele.Norm, picked: int
) -> None:
    for correct in range(len(choices)):
        found = belebele.score_item(scores, correct, tuple(choices), norm)
        assert found == belebele.Choice(picked, float(picked == correct))


def test_every_letter_may_be_the_correct_one() -> None:
    for i, letter in enumerate("ABCD"):
        assert belebele.score_generated(f"({letter})", i) == belebele.Choice(i, 1.0)
        assert belebele.score_generated("none", i) == belebele.Choice(None, 0.0)
    for correct in (-1, 4):
        with pytest.raises(SdrrlError, match=f"correct choice {correct}"):
            belebele.score_generated("A", correct)
        with pytest.raises(SdrrlError, match=f"correct choice {correct} for 4 choices"):
            belebele.score_item([0.0] * 4, correct)


def test_what_cannot_be_judged() -> None:
    with pytest.raises(SdrrlError, match="3 log-likelihoods and correct choice 0 for 4 choices"):
        belebele.score_item([0.0] * 3, 0)
    with pytest.raises(SdrrlError, match="correct choice 4"):
        belebele.score_item([0.0] * 4, 4)
    with pytest.raises(SdrrlError, match="not a number"):
        belebele.score_item([0.0, math.nan, 0.0, 0.0], 1)
    with pytest.raises(SdrrlError, match="a choice is empty"):
        belebele.score_item([0.0] * 4, 1, ["a", "", "c", "d"], "characters")
    with pytest.raises(SdrrlError, match="correct choice 5"):
        belebele.score_generated("A", 5)
