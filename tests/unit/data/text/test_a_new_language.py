"""One entry of languages.py is all that a new language with spaces between its words needs (docs/tour.md)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.filters import FILTERS, TextPair, make_filters
from sdrrl_nemo.data.stages.code_switch import code_switch, invert, protected_parts
from sdrrl_nemo.data.text import languages, templates, words
from sdrrl_nemo.data.text.segmentation import split_sentences

SWEDISH = languages.Language("swe", "Swedish", ("Latn",), "swe_Latn", "sv", "sv", own_name="svenska")


@pytest.fixture(autouse=True)
def swedish(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(languages.LANGUAGES, "swe", SWEDISH)
    templates._template_lines.cache_clear()
    yield
    templates._template_lines.cache_clear()


def test_it_has_the_english_instructions_of_table_1() -> None:
    question = templates.translation_question("Hello.", "eng", "swe")
    assert question == "Translate the following sentence from English to Swedish.\nHello."
    prefix = templates.random_prefix("Det är en bok.", "swe", random.Random(0))
    assert prefix is not None
    assert templates.completion_question(prefix, "swe").startswith("Complete the following sentence in Swedish")
    assert templates.answer_language_request("Why?", "swe") == "Why?\nAnswer in Swedish."
    assert templates.template_spans(question) == [(0, question.index("\n"))]


def test_instructions_in_the_language_itself_are_refused_in_one_sentence() -> None:
    with pytest.raises(SdrrlError, match="no wording of Table 1 in 'swe'; set instruction_language to english"):
        templates.translation_question("Hello.", "eng", "swe", "swe")
    with pytest.raises(SdrrlError, match="has a name for 'swe'"):
        templates.translation_question("Hello.", "eng", "swe", "fra")


def test_words_sentences_filters_and_code_switching_know_it() -> None:
    text = "Det är en bok. Den är ny."
    assert words.words(text, "swe") == ["Det", "är", "en", "bok", "Den", "är", "ny"]
    assert [s.strip() for s in split_sentences(text, "swe")] == ["Det är en bok.", "Den är ny."]
    for name, judge in make_filters([(name, {}) for name in FILTERS]).items():
        assert judge.reject(TextPair("This is a book. It is new.", text, "eng", "swe")) is None, name
    entries = invert({"book": ["bok"]}, "swe")
    switched, replaced, _ = code_switch(
        text, entries, 1.0, random.Random(0), code="swe", protected=protected_parts(text)
    )
    assert (switched, replaced) == ("Det är en book. Den är ny.", 1)
