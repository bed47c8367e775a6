"""Code, formulas, addresses and JSON are right as they are: filters judge the words between them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sdrrl_nemo.data.engines.base import Identified, LanguageIdentifier
from sdrrl_nemo.data.filters import FILTERS, TextPair
from sdrrl_nemo.data.stages.judge import LanguageId

PYTHON = "```python\ndef larger(a, b):\n    if a > b:\n        return a\n    return b\n```"
SQL = "SELECT name, age FROM customers WHERE city = 'Lisbon' ORDER BY age;"
JSON = '{\n  "name": "Ana Silva",\n  "age": 30,\n  "city": "Lisbon",\n  "job": "She is a baker (in town)?"\n}'
LATEX = "$$\\int_0^1 x^2 \\, dx = \\frac{1}{3} \\text{ is the area under the curve}$$"
LONG = "https://example.org/" + "a-very-long-path-that-no-word-is-as-long-as/" * 3

RECORDS = "[\n" + ",\n".join(f'  {{"name": "Ana", "age": {n}, "town": "Lisbon"}}' for n in range(9)) + "\n]"

# (source, right translation), English to Portuguese: most of each is not translated
RIGHT = {
    "JSON of many records": (RECORDS, RECORDS),
    "HTML": ("<ul><li><b>Porto</b></li></ul>", "<ul><li><b>Porto</b></li></ul>"),
    "number with a zero-width space": ("It cost 1,\u200b000 euros.", "Custou 1.000 euros."),
    "fenced code": (f"{PYTHON}\nThat is it.", f"{PYTHON}\nÉ isso."),
    "code without a fence": (f"{SQL}\nThat is it.", f"{SQL}\nÉ isso."),
    "a call": ("print('Hello, how are you today?')", "print('Hello, how are you today?')"),
    "JSON": (JSON, JSON),
    "JSON in a sentence": (
        'Return {"name": "Ana", "likes": "the old town by the sea"} as JSON.',
        'Devolva {"name": "Ana", "likes": "the old town by the sea"} como JSON.',
    ),
    "formula": (f"{LATEX}\nTake it.", f"{LATEX}\nAceite."),
    "addresses": (
        f"Write to the.sales.team@example.org or see {LONG}.",
        f"Escreva para the.sales.team@example.org ou veja {LONG}.",
    ),
    "paths and commands": (
        "$ pip install numpy pandas scipy\n$ git clone https://example.org/some/project.git\nRun both.",
        "$ pip install numpy pandas scipy\n$ git clone https://example.org/some/project.git\nExecute ambos.",
    ),
    "inline code": ("Use `the quick brown fox jumps over` here.", "Use `the quick brown fox jumps over` aqui."),
    "table of repeated code": (
        "\n".join(f"`x = call(1, 2, 3)` is {n}" for n in ("one", "two", "three", "four", "five")),
        "\n".join(f"`x = call(1, 2, 3)` é {n}" for n in ("um", "dois", "três", "quatro", "cinco")),
    ),
}

# The same texts with their words left in English, or with something else wrong beside the code
WRONG = [
    ("copy", f"{PYTHON}\nThe function returns the larger one.", f"{PYTHON}\nThe function returns the larger one."),
    ("script", f"{PYTHON}\nIt returns the larger one.", f"{PYTHON}\nОна возвращает большее."),
    ("punctuation", f"{JSON}\nWho is it? Where? When?", f"{JSON}\nQuem é, onde e quando."),
    ("punctuation", f"{PYTHON}\nSo.", "def larger(a, b): if a > b: return a\nEntão."),  # the code lost its lines
    ("length_ratio", f"{PYTHON}\n{'This sentence is part of it. ' * 5}", f"{PYTHON}\nEsta frase faz parte."),
    ("repetition", f"{PYTHON}\nIt is here.", f"{PYTHON}\n{'a raposa pula sobre o cão ' * 4}"),
    ("repeated_sentences", f"{PYTHON}\nYes.", f"{PYTHON}\nO gato bebe leite. O gato bebe leite. O gato bebe leite."),
    ("character_ratio", f"{PYTHON}\nThe function returns it.", f"{PYTHON}\nA: *** ### --- +++ === (...)"),
    ("length", f"{PYTHON}\nYes.", f"{PYTHON}\n{'lentokone' * 9}"),
    ("numbers", f"{PYTHON}\nIt has 5 lines.", f"{PYTHON}\nTem 6 linhas."),
]


def verdict(name: str, source: str, target: str) -> str | None:
    options: dict[str, object] = {"length": {"longest_word": 40}}.get(name, {})  # type: ignore[assignment]
    return FILTERS.create(name, **options).reject(TextPair(source, target, "eng", "por"))


@pytest.mark.parametrize("name", sorted(FILTERS))
@pytest.mark.parametrize("kind", RIGHT)
def test_what_is_not_translated_is_not_held_against_a_translation(kind: str, name: str) -> None:
    source, target = RIGHT[kind]
    assert verdict(name, source, target) is None


@pytest.mark.parametrize(("name", "source", "target"), WRONG)
def test_the_words_beside_it_are_judged(name: str, source: str, target: str) -> None:
    assert verdict(name, source, target) is not None


def test_a_song_may_repeat_itself_in_translation() -> None:
    song = "Row the boat down the stream, " * 6
    again = "Rema o barco rio abaixo, " * 6
    assert verdict("repetition", song, again) is None
    assert verdict("repetition", "Row the boat down the stream and come home before the night falls.", again)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("7:15 a.m. is 07:15.\n3:45 p.m. is 15:45.", "7:15 a.m. é 07:15.\n3:45 p.m. é 15:45."),
        (
            "Pens: 2 × 1.80 = 3.60 euros\nTotal: 7.20 + 3.60 = 10.80 euros",
            "Canetas: 2 × 1,80 = 3,60 euros\nTotal: 7,20 + 3,60 = 10,80 euros",
        ),
        ("Paris, London, Amazon, Google, Microsoft and Apple", "Paris, Londres, Amazon, Google, Microsoft e Apple"),
    ],
)
def test_names_and_units_are_no_copy(source: str, target: str) -> None:
    assert verdict("copy", source, target) is None
    assert verdict("copy", source.upper(), "HOW TO MAKE BREAD AT HOME") is None
    assert verdict("copy", "HOW TO MAKE BREAD AT HOME", "HOW TO MAKE BREAD AT HOME") is not None


def test_names_in_latin_letters_are_not_of_another_script() -> None:
    source, target = "HTML stands for HyperText Markup Language.", "HTML은 HyperText Markup Language의 약자입니다."
    script = FILTERS.create("script", minimum=0.8)
    assert script.reject(TextPair(source, target, "eng", "kor")) is None
    assert script.reject(TextPair(source, source.replace("for", "의"), "eng", "kor")) is not None


def test_an_answer_judged_alone_is_judged_whole() -> None:
    loop = "```\n" + "print(x)\n" * 20 + "```"
    assert FILTERS.create("repetition").reject(TextPair(loop, loop, "eng", "eng")) is not None


class Letters(LanguageIdentifier):
    """Every text of Latin letters is English; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def identify(self, texts: Sequence[str]) -> list[Identified]:
        self.asked += texts
        return [Identified("eng" if any("a" <= c <= "z" for c in text.lower()) else "jpn", 0.99) for text in texts]


def test_language_identification_sees_the_words_alone() -> None:
    engine = Letters()
    stage = LanguageId("lid", engine, {}, "jpn", (5, 0.5), 8)
    pairs = [
        TextPair(f"{PYTHON}\nThis is how.", f"{PYTHON}\nこのようにします。", "eng", "jpn"),
        TextPair(JSON, JSON, "eng", "jpn"),
        TextPair("Write to a@b.org.", "a@b.orgへ書いてください。", "eng", "jpn"),
        TextPair("Write to me.", "Write to me.", "eng", "jpn"),
    ]
    verdicts = [v.rejection.reason if v.rejection else None for v in stage.judge(pairs)]
    assert verdicts == [None, None, None, "off-target"]
    assert not any("larger" in text or "@" in text or "Ana" in text for text in engine.asked)


def test_invisible_characters_do_not_hide_a_copy() -> None:
    source = "The fox jumps over the lazy dog near the river."
    spread = "\u200b".join(source)
    assert verdict("copy", source, spread) is not None
    assert TextPair(source, spread, "eng", "por").target_prose == source
