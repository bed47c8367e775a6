"""Rows of several exchanges through every stage: what is done to one question and answer is done to each turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.config import InstructionsConfig, TurnsConfig
from sdrrl_nemo.data.conversations import conversation_of, first_exchange
from sdrrl_nemo.data.filters import Duplicate, make_filters
from sdrrl_nemo.data.stages.answer_language import AnswerLanguage
from sdrrl_nemo.data.stages.code_switch import CodeSwitch, SwitchDictionary
from sdrrl_nemo.data.stages.combine import Subsets
from sdrrl_nemo.data.stages.deduplicate import Duplicates
from sdrrl_nemo.data.stages.generate import Generate
from sdrrl_nemo.data.stages.ingest import Ingest, read_instructions, split_held_out
from sdrrl_nemo.data.stages.judge import Heuristics, Quality
from sdrrl_nemo.data.stages.order import Order
from sdrrl_nemo.data.stages.synthesise import Sample
from sdrrl_nemo.data.stages.translate import Translate
from tests.unit.data import tiny_engines
from tests.unit.data.tiny_run import write_rows

FOUR = {d: d for d in ("LL", "TL", "LT", "TT")}
PAIR = ("eng", "por")


def messages(*texts: str, system: str = "") -> dict[str, Any]:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *turns]}


def ingested(path: Path, rows: list[dict[str, Any]], **turns: Any) -> list[Any]:
    return read_instructions(InstructionsConfig(path=str(write_rows(path, rows))), TurnsConfig(**turns)).rows


@pytest.fixture
def three(tmp_path: Path) -> Any:
    """A row of three exchanges behind a system turn."""
    texts = ("one question", "one answer", "two question", "two answer", "last question", "last answer")
    (row,) = ingested(tmp_path / "three.jsonl", [messages(*texts, system="Be kind.")])
    return row


def translated(row: Any) -> Any:
    (synth,) = Sample("answers", 7, 8).process([row]).rows
    (new,) = Translate("translate", tiny_engines.TinyTranslator(), {}, PAIR, 8).process([synth]).rows
    return new


def test_keys_name_the_whole_conversation(tmp_path: Path) -> None:
    last = ("q", "a")
    rows = ingested(
        tmp_path / "a.jsonl",
        [
            messages(*last),
            messages("p", "b", *last),
            messages("p", "c", "q", "a", "r", "a"),
            messages(*last, system="S"),
            messages("p", "c", *last, system="S"),
        ],
    )
    assert len({r["key"] for r in rows}) == len(rows) == 5
    assert rows[0] == {"key": "2c63accacf83643b", "question": "q", "answer": "a"}  # as before there were conversations
    synth = Sample("answers", 7, 8).process(rows).rows
    assert len({r["key"] for r in synth}) == 5
    samples = Subsets(PAIR, {"LL": "LL"}, 8).process(synth).rows  # type: ignore[arg-type]
    assert len({r["key"] for r in Order(7).process(samples).rows}) == 5


def test_one_exchange_is_a_conversation_of_two_messages() -> None:
    row: Any = {"key": "k", "question": "q", "answer": "a"}
    assert conversation_of(row) == [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert first_exchange(row) == row


def test_a_conversation_ends_with_its_last_answer(three: Any) -> None:
    found = conversation_of(three)
    assert [m["role"] for m in found] == ["system", *["user", "assistant"] * 3]
    assert [m["content"] for m in found][-2:] == ["last question", "last answer"]
    assert first_exchange(three) == {"key": three["key"], "question": "one question", "answer": "one answer"}


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ({}, ["S", "q1", "a1", "q2", "a2", "q3", "a3"]),
        ({"system": "drop"}, ["q1", "a1", "q2", "a2", "q3", "a3"]),
        ({"most": 2}, ["S", "q1", "a1", "q2", "a2"]),
        ({"system": "drop", "most": 1}, ["q1", "a1"]),
    ],
)
def test_system_turns_and_length_by_option(tmp_path: Path, turns: dict[str, Any], expected: list[str]) -> None:
    (row,) = ingested(tmp_path / "a.jsonl", [messages("q1", "a1", "q2", "a2", "q3", "a3", system="S")], **turns)
    assert [m["content"] for m in conversation_of(row)] == expected


def test_repeats_are_conversations_with_the_same_questions(tmp_path: Path) -> None:
    rows = [
        messages("q1", "a", "q2", "a"),
        messages("Q1 ", "b", "q2", "b"),
        messages("q1", "a", "q3", "a"),
        messages("q1", "a", "q2", "a", system="S"),
        messages("q1\nq2", "a"),
    ]
    path = write_rows(tmp_path / "a.jsonl", rows)
    found = read_instructions(InstructionsConfig(path=str(path)))
    assert [r["detail"] for r in found.rejects] == [f"{path}, line 2 repeats the question of {path}, line 1"]


def test_no_training_row_begins_with_a_held_out_question(tmp_path: Path) -> None:
    rows = [messages(f"q{i}", "a", f"then {j}", "b") for i in range(12) for j in range(3)]
    found = ingested(tmp_path / "a.jsonl", rows)
    train, held = split_held_out(found, 6, None, 7)
    first = [{first_exchange(r)["question"] for r in part} for part in (train, held)]
    assert len(held) == 6
    assert not first[0] & first[1]
    config = InstructionsConfig(path=str(tmp_path / "a.jsonl"), held_out=6)
    dropped = Ingest(config, "sha", 7).process([{}]).facts()["dropped"]
    assert dropped == {"begins with a held-out question": 3 * len(first[1]) - 6}


def test_an_ingest_of_the_time_before_conversations_is_made_anew_and_others_are_not() -> None:
    config = InstructionsConfig(path="p")
    stage = Ingest(config, "sha", 7)
    before = stage.settings()
    assert "turns" not in before
    assert not stage.left_out({"training": 3})
    assert stage.left_out({"later turns left out": 1})
    assert stage.left_out({"system turn left out": 1})
    assert not Ingest(config, "sha", 7, TurnsConfig(system="drop", most=1)).left_out({"later turns left out": 1})
    stage.anew = True
    assert stage.settings() == {**before, "turns": {"system": "keep", "most": None}}
    assert Ingest(config, "sha", 7, TurnsConfig(supervise="last")).settings() == before


class Recorder(tiny_engines.TinyTalker):
    """Keeps what it was asked; an answer to a question with ``bad`` in it is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def converse(self, conversations: Any) -> list[str]:
        self.asked.append([list(c) for c in conversations])
        return ["" if "bad" in c[-1]["content"] else f"said {len(c)}" for c in conversations]


def test_the_model_answers_turn_by_turn_after_its_own_answers(three: Any) -> None:
    engine = Recorder()
    single = {"key": "s", "question": "alone in the world", "answer": "y"}
    bad = {"key": "b", "question": "q", "answer": "y", "earlier": [{"question": "bad", "answer": "y"}]}
    outcome = Generate(engine, make_filters([]), "eng", 8, {}).process([three, single, bad])
    whole, alone, lost = outcome.rows
    assert (whole["generated_earlier"], whole["generated"]) == (["said 2", "said 4"], "said 6")
    assert alone["generated"] == tiny_engines.TinyGenerator().generate(["alone in the world"])[0]
    assert lost["generated"] is None
    assert [len(round_) for round_ in engine.asked] == [2, 1, 1]  # all in step; what failed is asked no more
    assert [m["content"] for m in engine.asked[2][0]] == [
        "Be kind.", "one question", "said 2", "two question", "said 4", "last question",
    ]  # fmt: skip
    assert [(r["key"], r["reason"], r["turn"]) for r in outcome.rejects] == [("b", "empty or unfinished answer", 1)]
    y, y_hat = Sample("both", 7, 8).process([whole]).rows
    assert [m["content"] for m in conversation_of(y)] == [m["content"] for m in conversation_of(three)]
    assert [m["content"] for m in conversation_of(y_hat)][2::2] == ["said 2", "said 4", "said 6"]
    assert y["key"] != y_hat["key"]
    assert y["source_key"] == y_hat["source_key"] == three["key"]
    assert Sample("both", 7, 8).process([lost]).facts()["dropped"] == {"no usable y_hat": 1}


def test_an_engine_for_single_questions_says_that_it_takes_no_conversation(three: Any) -> None:
    stage = Generate(tiny_engines.TinyGenerator(), make_filters([]), "eng", 8, {})
    with pytest.raises(SdrrlError, match=r"generator 'TinyGenerator' takes one question at a time.*turns.most=1"):
        stage.process([three])
    single = [[{"role": "user", "content": "q"}]]
    assert tiny_engines.TinyGenerator().converse(single) == tiny_engines.TinyGenerator().generate(["q"])  # type: ignore[arg-type]


def test_every_turn_is_translated_and_the_system_turn_is_not(three: Any) -> None:
    row = translated(three)
    assert row["earlier_target"] == [
        {"question": "oneão questionão", "answer": "oneão answerão"},
        {"question": "twoão questionão", "answer": "twoão answerão"},
    ]
    assert (row["question_target"], row["system"]) == ("lastão questionão", "Be kind.")


def test_combinations_are_built_turn_by_turn(three: Any) -> None:
    mark = tiny_engines.MARK
    out = Subsets(PAIR, FOUR, 8).process([translated(three)]).rows
    assert [r["subset"] for r in out] == list(FOUR)
    for row in out:
        system, *turns = conversation_of(row)
        assert system == {"role": "system", "content": "Be kind."}
        for turn in turns:
            letter = row["subset"][("user", "assistant").index(turn["role"])]
            assert (mark in turn["content"]) == (letter == "T")


@pytest.mark.parametrize(
    ("component", "left"), [("question", ["LL", "LT"]), ("answer", ["LL", "TL"])], ids=["question", "answer"]
)
@pytest.mark.parametrize("turn", ["one", "two", "last"])
def test_one_rejected_turn_costs_the_conversation_what_needs_it(
    three: Any, turn: str, component: str, left: list[str]
) -> None:
    class Estimator(tiny_engines.TinyEstimator):
        def score(self, sources: Any, translations: Any) -> list[float]:
            return [0.2 if source == f"{turn} {component}" else 0.8 for source in sources]

    before = translated(three)
    kept = json.dumps(before)
    outcome = Quality("quality", Estimator(), {}, 0.5, 8, ("eng", "por")).process([before])
    assert json.dumps(before) == kept  # the row that came in is another's
    facts = outcome.facts()
    assert (facts["in"], facts["dropped"]) == (6, {"below tau": 1})
    (reject,) = outcome.rejects
    assert (reject["component"], reject.get("turn")) == (component, {"one": 1, "two": 2, "last": None}[turn])
    (row,) = outcome.rows
    scores = [*row["earlier_quality"], {c: row[f"{c}_quality"] for c in ("question", "answer")}]
    assert sorted(s for exchange in scores for s in exchange.values()) == [0.2, *[0.8] * 5]
    combined = Subsets(PAIR, FOUR, 8).process([row])
    assert [r["subset"] for r in combined.rows] == left
    assert combined.facts()["in"] == 4
    again = Quality("again", Estimator(), {}, 0.5, 8, ("eng", "por")).process([row])
    assert again.facts()["in"] == 5


def test_filters_look_at_every_turn(tmp_path: Path) -> None:
    (row,) = ingested(tmp_path / "a.jsonl", [messages("with 17 in it", "a", "q", "a")])
    new = translated(row)
    new["earlier_target"][0]["question"] = "comão nadaão"
    outcome = Heuristics("heuristics", [], make_filters([("numbers", {})]), PAIR, 8).process([new])
    assert [(r["reason"], r["turn"]) for r in outcome.rejects] == [("numbers", 1)]
    assert outcome.rows[0]["earlier_target"][0] == {"question": None, "answer": new["earlier_target"][0]["answer"]}


def test_every_question_is_switched_and_asks_for_its_language(tmp_path: Path) -> None:
    text = "the question about the number"
    (row,) = ingested(tmp_path / "a.jsonl", [messages(text, "the answer", f"again {text}", "about the number")])
    samples = Subsets(PAIR, FOUR, 8).process([translated(row)]).rows
    dictionary = SwitchDictionary(tiny_engines.TinyDictionary(), {}, PAIR, "none")
    switched = CodeSwitch(dictionary, 1.0, 7, 8).process(samples)
    ll = switched.rows[0]
    assert (ll["earlier_plain"], ll["question_plain"]) == ([text], f"again {text}")
    words = set(ll["earlier"][0]["question"].split())
    assert not words & {"question", "about", "the", "number"}
    assert ll["switched"] == 10
    assert [m["content"] for m in conversation_of(ll)][1::2] == ["the answer", "about the number"]
    assert [r["switched"] for r in switched.rows] == [10, 0, 10, 0]  # target questions are left alone here
    lt = AnswerLanguage(False, 8).process(samples).rows[2]
    asked = [m["content"] for m in conversation_of(lt) if m["role"] == "user"]
    assert asked == [f"{text}\nAnswer in Portuguese.", f"again {text}\nAnswer in Portuguese."]
    assert samples[2]["earlier"][0]["question"] == text  # the rows that came in are another stage's


def test_the_last_question_of_a_conversation_is_switched_like_a_single_one() -> None:
    dictionary = SwitchDictionary(tiny_engines.TinyDictionary(), {}, PAIR, "none")
    sample: Any = {
        "subset": "LL", "combination": "LL", "pair": "eng-por", "question": "the question about the number " * 4,
        "answer": "a", "question_language": "eng", "answer_language": "eng", "source_key": "k", "origin": "y",
    }  # fmt: skip
    longer = {**sample, "earlier": [{"question": sample["question"], "answer": "b"}]}
    one, two = CodeSwitch(dictionary, 0.5, 7, 8).process([sample, longer]).rows
    assert one["question"] == two["question"] != two["earlier"][0]["question"]


def test_conversations_that_ask_the_same_in_translation_are_found(tmp_path: Path) -> None:
    def row(key: str, first: str, target: str | None, system: str = "") -> Any:
        head = {"system": system} if system else {}
        return {
            "key": key, "source_key": key, "question": "And why is that so?", "question_target": "E por que é assim?",
            "answer": "a", "earlier": [{"question": first, "answer": "a"}],
            "earlier_target": [{"question": target, "answer": "a"}], **head,
        }  # fmt: skip

    capital = "Qual é a capital do Peru?"
    rows = [
        row("a", "What is the capital of Peru?", capital),
        row("b", "Name the capital city of Peru.", capital),
        row("c", "Why is the sky blue?", "Por que o céu é azul?"),
        row("d", "What is the capital of Peru, then?", None),
        row("e", "The capital of Peru is what?", capital, system="Speak like a pirate."),
    ]
    stage = Duplicates("duplicates", Duplicate(), PAIR, 2)
    outcome = stage.process(rows)
    assert [r["key"] for r in outcome.rejects] == ["b"]
    assert outcome.facts()["in"] == 4  # the question of d is not whole
    assert [r["question_target"] is None for r in outcome.rows] == [False, True, False, False, False]
