from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import GENERATORS, TRANSLATORS, Generator, fingerprint_of
from sdrrl_nemo.data.engines.generate.hf import HfGenerator
from sdrrl_nemo.data.engines.translate.llm_translate import LlmTranslator, clean


@pytest.mark.parametrize(
    ("answer", "text", "wanted"),
    [
        ("Olá, mundo.", "Hello, world.", "Olá, mundo."),
        ("Translation: Olá.", "Hello.", "Olá."),
        ("**Translation:** Olá.", "Hello.", "Olá."),
        ("Portuguese: Olá.", "Hello.", "Olá."),
        ("Portuguese translation:\nOlá.", "Hello.", "Olá."),
        ("Sure! Here is the translation:\n\nOlá.", "Hello.", "Olá."),
        ("Here is the translation into Portuguese: Translation: Olá.", "Hello.", "Olá."),
        ('"Olá."', "Hello.", "Olá."),
        ("«Olá.»", "Hello.", "Olá."),
        ('"Olá."', '"Hello."', '"Olá."'),
        ('"Olá" e "tchau"', "Hello and goodbye", '"Olá" e "tchau"'),
        ("Olá.\n\nEnglish: Good night.\nPortuguese: Boa noite.", "Hello.", "Olá."),
        ("Here is a list: água, pão", "Here is a list: water, bread", "Here is a list: água, pão"),
        ("Translation: a arte de traduzir", "Translation: the art of translating", "Translation: a arte de traduzir"),
        ("Claro: um dia", "Sure: one day", "Claro: um dia"),
        ("", "Hello.", ""),
        ('"', "Hello.", '"'),
    ],
)
def test_labels_and_quotes_that_the_model_adds_go(answer: str, text: str, wanted: str) -> None:
    assert clean(answer, text, "English", "Portuguese") == wanted


def test_prompts_with_and_without_examples(tiny_model: Path, tmp_path: Path) -> None:
    options = {"model": str(tiny_model), "max_new_tokens": 4}
    plain = LlmTranslator("hf", options)
    assert plain.question("a\nb", "eng", "jpn") == (
        "Translate the following text from English into Japanese. "
        "Do not answer it and do not explain; give the translation alone.\n\na\nb"
    )
    (tmp_path / "eng-por.tsv").write_text("Good day\tBom dia\nThanks\tObrigado\nYes\tSim\n", encoding="utf-8")
    (tmp_path / "por-eng.tsv").write_text("Bom dia\n", encoding="utf-8")
    examples = str(tmp_path / "{source}-{target}.tsv")
    shown = LlmTranslator("hf", options, prompt="{source} to {target}", shots=2, examples=examples)
    assert shown.question("No", "eng", "por") == (
        "English to Portuguese\n\nEnglish: Good day\nPortuguese: Bom dia\n\n"
        "English: Thanks\nPortuguese: Obrigado\n\nEnglish: No\nPortuguese:"
    )
    with pytest.raises(SdrrlError, match=r"por-eng\.tsv, line 1: expected source, one tab, translation"):
        shown.question("x", "por", "eng")
    with pytest.raises(SdrrlError, match=r"eng-ces\.tsv does not exist"):
        shown.question("x", "eng", "ces")
    before = fingerprint_of(shown, "eng", "por")
    (tmp_path / "eng-por.tsv").write_text("Good day\tBoa tarde\nThanks\tObrigado\n", encoding="utf-8")
    again = LlmTranslator("hf", options, prompt="{source} to {target}", shots=2, examples=examples)
    assert fingerprint_of(again, "eng", "por") != before
    with pytest.raises(SdrrlError, match="2 examples, 3 are asked for"):
        LlmTranslator("hf", options, shots=3, examples=examples).translate(["x"], "eng", "por")


class Script(Generator):
    """Says what it is told to; '' for anything else, as a generator does that drops what was cut."""

    def __init__(self, answers: dict[str, str], unfinished: str = "keep") -> None:
        assert unfinished == "drop"
        self.answers, self.asked = answers, 0

    def generate(self, questions: Sequence[str]) -> list[str]:
        self.asked += len(questions)
        return [self.answers.get(q.rsplit("\n\n", 1)[1], "") for q in questions]


GENERATORS.register("script-of-test-llm-translate")(Script)


def test_each_text_is_asked_once_and_a_cut_translation_is_empty_and_counted() -> None:
    engine = LlmTranslator("script-of-test-llm-translate", {"answers": {"a": "Translation: x", "b": '"y"'}})
    assert engine.translate(["b", "a", "", "long", "a", " \n"], "eng", "por") == ["y", "x", "", "", "x", " \n"]
    assert engine.incomplete == 1
    assert engine._generator.asked == 3  # type: ignore[attr-defined]
    assert engine.translate([], "eng", "por") == []


def test_a_real_generator_below(tiny_model: Path) -> None:
    options = {"model": str(tiny_model), "max_new_tokens": 6}
    engine = LlmTranslator("hf", options)
    below = HfGenerator(str(tiny_model), max_new_tokens=6, unfinished="drop")
    said = below.generate([engine.question("water", "eng", "por")])
    assert engine.translate(["water"], "eng", "por") == [clean(said[0], "water", "English", "Portuguese")]
    copy = pickle.loads(pickle.dumps(engine))
    assert copy.identity == engine.identity
    assert engine.identity.endswith(below.identity)
    assert engine.licence == below.licence


def test_bad_options_are_one_sentence(tiny_model: Path) -> None:
    def make(**options: object) -> None:
        TRANSLATORS.create("llm_translate", **({"generator": "hf", "options": {"model": str(tiny_model)}} | options))

    with pytest.raises(SdrrlError, match="unknown generator backend 'hff'; did you mean 'hf'"):
        make(generator="hff")
    with pytest.raises(SdrrlError, match=r"options\.unfinished must be 'drop'"):
        make(options={"model": str(tiny_model), "unfinished": "keep"})
    with pytest.raises(SdrrlError, match="give both 'shots'"):
        make(shots=2)
    with pytest.raises(SdrrlError, match=r"may hold \{source\} and \{target\} alone"):
        make(prompt="Translate {text}")
