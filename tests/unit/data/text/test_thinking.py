"""What is a thought of a reasoning model and what only speaks of its tags; y and y_hat under each option."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdrrl_nemo.data.config import InstructionsConfig
from sdrrl_nemo.data.engines.base import Generator
from sdrrl_nemo.data.engines.translate.llm_translate import clean
from sdrrl_nemo.data.filters import make_filters
from sdrrl_nemo.data.stages.generate import Generate
from sdrrl_nemo.data.stages.ingest import read_instructions
from sdrrl_nemo.data.text.thinking import TAGS, without_thoughts
from tests.unit.data.tiny_run import write_rows


@pytest.mark.parametrize(
    ("text", "left", "blocks"),
    [
        ("<think>\nLet me see.\n</think>\n\nParis.", "Paris.", 1),
        ("<think>\n\n</think>\n\nParis.", "Paris.", 1),
        ("  <THINK>a</THINK>Paris.", "Paris.", 1),
        ("<think>a</think>\n<think>b</think>\nParis.", "Paris.", 2),
        ("Let me see.\n</think>\n\nParis.", "Paris.", 1),  # the template put the opening tag into the prompt
        ("Let me see.</think>Paris.", "Paris.", 1),
        ('Let me see.</think>"Paris."', '"Paris."', 1),
        ("<think>\nLet me see. The", "", 1),  # cut by the bound on new tokens
        ("</think>", "", 1),
        ("Paris.\n<think>\nWas that right?\n</think>\nYes.", "Paris.\n\nYes.", 1),
        ("Sure! <think>\nWell\n</think>\nYes.", "Sure! \nYes.", 1),
        ("Paris.\n<think>\nWas that", "Paris.", 1),
        ("<think>in <think> tags</think> so</think>Paris.", "Paris.", 2),
        ("<think>end it with `</think>`.\n</think>\nParis.", "Paris.", 1),
        ("[THINK]a[/THINK]Paris.", "Paris.", 1),
        ("◁think▷a◁/think▷Paris.", "Paris.", 1),
        ("<|begin_of_thought|>\n\na\n\n<|end_of_thought|>\n\nParis.", "Paris.", 1),
    ],
)
def test_thoughts_are_taken_out(text: str, left: str, blocks: int) -> None:
    assert without_thoughts(text) == (left, blocks)


@pytest.mark.parametrize(
    "text",
    [
        " Paris. ",
        "I think, therefore I am. <b>think</b>",
        "R1 writes `<think>` before it thinks and `</think>` after.",
        "R1 writes `<think>…</think>` first.",
        'Split at "</think>" and keep the rest.',
        "Wrap it in <think> and </think> tags.",
        "Use the <think> tag.",
        "For example:\n```xml\n<think>\na\n</think>\n```\nThat is all.",
    ],
)
def test_a_text_that_speaks_of_the_tags_stays(text: str) -> None:
    assert without_thoughts(text) == (text, 0)


@given(st.sampled_from(TAGS), st.text(alphabet="ab \n.", max_size=20), st.text(alphabet="cd", min_size=1, max_size=9))
def test_whatever_is_thought_the_answer_is_left(tags: tuple[str, str], thought: str, answer: str) -> None:
    begin, end = tags
    assert without_thoughts(f"{begin}{thought}{end}{answer}") == (answer, 1)
    assert without_thoughts(f"{thought}{end}{answer}") == (answer, 1)
    assert without_thoughts(f"{begin}{thought}") == ("", 1)


class Thinker(Generator):
    """Thinks aloud where it is asked to."""

    def generate(self, questions: list[str]) -> list[str]:  # type: ignore[override]
        said = {"think": "<think>a b c d</think>Paris.", "forget": "a b c</think>\nParis.", "long": "<think>a b"}
        return [said.get(q, "Paris.") for q in questions]


ASKED = ["think", "plain", "forget", "long"]


@pytest.mark.parametrize(
    ("mode", "answers", "notes"),
    [
        ("strip", ["Paris.", "Paris.", "Paris.", None], {"blocks of thinking taken out": 3}),
        (
            "keep",
            ["<think>a b c d</think>Paris.", "Paris.", "a b c</think>\nParis.", "<think>a b"],
            {"blocks of thinking kept": 3},
        ),
        ("forbid", [None, "Paris.", None, None], {}),
    ],
)
def test_y_hat_with_thoughts(mode: str, answers: list[str | None], notes: dict[str, int]) -> None:
    stage = Generate(Thinker(), make_filters([]), "eng", 8, {}, mode)
    outcome = stage.process([{"key": q, "question": q, "answer": "y"} for q in ASKED])
    assert [r["generated"] for r in outcome.rows] == answers
    assert outcome.facts()["notes"] == notes
    assert ("thinking" in stage.settings()) == (mode != "strip")
    if mode == "strip":
        assert [(r["key"], r["reason"]) for r in outcome.rejects] == [("long", "nothing but thinking")]


def test_y_hat_is_as_plain_as_y() -> None:
    class Careless(Generator):
        def generate(self, questions: list[str]) -> list[str]:  # type: ignore[override]
            return ["one\r\ntwo\x00\r"]

    outcome = Generate(Careless(), {}, "eng", 8, {}).process([{"key": "k", "question": "q", "answer": "y"}])
    assert outcome.rows[0]["generated"] == "one\ntwo"
    assert outcome.facts()["notes"] == {"texts with NUL, removed": 1, "texts with CRLF, now LF": 1}


def test_filters_see_the_answer_without_its_thoughts() -> None:
    stage = Generate(Thinker(), make_filters([("length", {"maximum": 6})]), "eng", 8, {})
    assert stage.process([{"key": "k", "question": "think", "answer": "y"}]).rows[0]["generated"] == "Paris."


@pytest.mark.parametrize(
    ("mode", "answers"),
    [("strip", ["Rome.", "Paris."]), ("keep", ["Rome.", "<think>a</think>Paris.", "<think>a"]), ("forbid", ["Rome."])],
)
def test_y_with_thoughts(tmp_path: Path, mode: str, answers: list[str]) -> None:
    given_ = ["Rome.", "<think>a</think>Paris.", "<think>a"]
    path = write_rows(tmp_path / "a.jsonl", [{"instruction": f"q{i}", "output": t} for i, t in enumerate(given_)])
    share = 0.0 if mode == "forbid" else 0.4  # what the option asks for says nothing against the set
    found = read_instructions(InstructionsConfig(path=str(path), thinking=mode, max_rejected=share))
    assert [r["answer"] for r in found.rows] == answers
    assert len(found.rejects) == 3 - len(answers)


def test_a_translation_by_a_reasoning_model_is_without_its_thoughts() -> None:
    assert clean("<think>Portuguese, so</think>\nOlá.", "Hello.", "English", "Portuguese") == "Olá."
    kept = "<think>a</think>\nOlá."
    assert clean(kept, "<think>a</think>\nHello.", "English", "Portuguese") == kept
