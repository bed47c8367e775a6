"""Each filter against pairs worked by hand, on both sides of its threshold."""

from __future__ import annotations

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.filters import FILTERS, TextPair, answer_alone, make_filters, script_share


def rejects(name: str, source: str, target: str, language: str = "por", **options: object) -> bool:
    return FILTERS.create(name, **options).reject(TextPair(source, target, "eng", language)) is not None


@pytest.mark.parametrize(
    ("name", "source", "target", "language", "bad"),
    [
        ("length", "Hi", "", "por", True),
        ("length", "Hi", "Oi", "por", False),
        ("length_ratio", "A sentence of some length, about thirty words or so.", "Uma frase.", "por", True),
        ("length_ratio", "A sentence of some length.", "Uma frase de algum comprimento.", "por", False),
        ("length_ratio", "Yes", "Sim, claro", "por", False),  # within the slack
        ("repetition", "x", "o gato come o peixe " * 6, "por", True),
        ("repetition", "x", "o gato come o peixe e depois dorme na cadeira perto da janela", "por", False),
        ("repetition", "x", "はい" * 20, "jpn", True),
        ("repetition", "x", "私は猫が好きで毎日一緒に公園まで歩きます", "jpn", False),
        ("copy", "The cat sat on the mat", "The cat sat on the mat", "por", True),
        ("copy", "The cat sat on the mat", "O gato sentou no tapete", "por", False),
        ("copy", "Paris", "Paris", "por", False),  # a name is its own translation
        ("copy", "1 2 3 4 5 6", "1 2 3 4 5 6", "por", False),  # numbers are not words
        ("numbers", "It was 1,234.5 km in 1994.", "Foram 1.234,5 km em 1994.", "por", False),
        ("numbers", "It was built in 1889.", "Foi construída em 1998.", "por", True),
        ("numbers", "It was built in 1889.", "Foi construída.", "por", True),
        ("numbers", "There are seven days.", "Há 7 dias.", "por", False),  # one more number is allowed
        ("punctuation", "How? Why? When?", "Como", "por", True),
        ("punctuation", "How are you?", "Como vai você?", "por", False),
        ("punctuation", "one\ntwo\nthree", "um dois três", "por", True),
        ("punctuation", "Are you (really) fine?", "元気ですか？（本当に）", "jpn", False),
        ("script", "Good day to you", "Добрый день вам", "por", True),
        ("script", "Good day to you", "Добрий день вам", "ukr", False),
        ("script", "Good day to you", "こんにちは、元気ですか", "jpn", False),
        ("script", "Good day", "สวัสดีครับ", "tha", False),
        ("script", "Good day", "Bom dia 123", "khm", True),
        ("script", "12345", "12345", "kor", False),  # no letters, nothing to judge
    ],
)
def test_filter(name: str, source: str, target: str, language: str, bad: bool) -> None:
    assert rejects(name, source, target, language) is bad


def test_thresholds_come_from_options() -> None:
    assert not rejects("numbers", "In 1889.", "Em.", max_missing=1)
    assert rejects("numbers", "In spring.", "Em 5.", max_extra=0)
    assert rejects("length_ratio", "abcdefghij" * 3, "abcdefghij" * 5, maximum=1.5)
    assert rejects("script", "x", "abcд", minimum=0.8)


def test_script_share_counts_letters_only() -> None:
    assert script_share("abc 123 -- дд", "por") == pytest.approx(3 / 5)
    assert script_share("コーヒー", "jpn") == 1.0
    assert script_share("123", "por") is None


def test_unknown_filter_and_option() -> None:
    with pytest.raises(SdrrlError, match="did you mean 'length_ratio'"):
        make_filters([("length_ration", {})])
    with pytest.raises(SdrrlError, match="no option 'maximun'; did you mean 'maximum'"):
        make_filters([("copy", {"maximun": 1.0})])
    with pytest.raises(SdrrlError, match="named twice"):
        make_filters([("copy", {}), ("copy", {})])


@pytest.mark.parametrize(
    ("question", "answer", "language", "bad"),
    [
        ("How does a microwave oven heat food?", "How does a microwave oven heat food?", "eng", True),
        ("How does a microwave oven heat food?", "**how does a microwave oven heat food**", "eng", True),
        ("How does a spider spin?", "How does a spider spin?\nHow does a spider spin?", "eng", True),
        ("Fix the sentence if need be.\nShe go home.", "Fix the sentence if need be.", "eng", True),
        ("Where does the sun set?", "Question: Where does the sun set?\nAnswer:", "eng", False),  # a label behind it
        ("Where does the sun set?", "Question: Where does the sun set?", "eng", True),
        ("猫はどこで寝るのが好きですか？", "猫はどこで寝るのが好きですか？", "jpn", True),
        ("Fix the sentence if need be.\nShe goes home.", "She goes home.", "eng", False),
        ("Repeat after me: the cat sat on the mat", "The cat sat on the mat.", "eng", False),
        ("Would you like tea or coffee?", "Coffee", "eng", False),
        ("What is two plus two?", "What is two plus two? Four.", "eng", False),
        ("How does a spider spin?", "How does a spider spin? It has glands for it.", "eng", False),
        ("Say good morning", "Good morning", "eng", False),
        ("Good morning!", "Good morning!", "eng", False),  # a greeting is returned
    ],
)
def test_an_answer_that_only_echoes_its_question(question: str, answer: str, language: str, bad: bool) -> None:
    found = FILTERS.create("echo").reject(answer_alone(answer, language, question))
    assert (found is not None) is bad


def test_echo_needs_the_question() -> None:
    assert FILTERS.create("echo").reject(TextPair("the same in both", "the same in both", "eng", "por")) is None
