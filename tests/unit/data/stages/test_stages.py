"""Ingest, Eq. 4, generation's bookkeeping, rejection, subsets, parallel pairs, order."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.config import InstructionsConfig
from sdrrl_nemo.data.engines.base import CUT, Answer
from sdrrl_nemo.data.engines.generate.answers import TellingGenerator
from sdrrl_nemo.data.engines.generate.in_process import NO_ROOM
from sdrrl_nemo.data.execution.stage_runner import Row, StreamStage
from sdrrl_nemo.data.filters import Duplicate, make_filters
from sdrrl_nemo.data.rows import Message
from sdrrl_nemo.data.stages.answer_language import AnswerLanguage
from sdrrl_nemo.data.stages.combine import Subsets
from sdrrl_nemo.data.stages.deduplicate import Duplicates
from sdrrl_nemo.data.stages.generate import Generate
from sdrrl_nemo.data.stages.ingest import Ingest, read_instructions, split_held_out
from sdrrl_nemo.data.stages.judge import LanguageId, Quality
from sdrrl_nemo.data.stages.order import Order, require_rows
from sdrrl_nemo.data.stages.parallel_corpus import SelectPairs, Templates
from sdrrl_nemo.data.stages.synthesise import Sample, draws_y_hat
from sdrrl_nemo.data.stages.translate import Translate
from sdrrl_nemo.report.card_answers import USED, answer_counts, synth_draws
from tests.unit.data import tiny_engines
from tests.unit.data.tiny_run import instruction_rows, write_rows


def test_duplicates_are_dropped_with_reason(tmp_path: Path) -> None:
    rows = instruction_rows(3)
    rows.append({**rows[1], "instruction": rows[1]["instruction"].upper(), "output": "another answer"})
    path = write_rows(tmp_path / "d.jsonl", rows)
    found, rejects, _ = read_instructions(InstructionsConfig(path=str(path)))
    assert len(found) == 3
    assert [r["detail"] for r in rejects] == [f"{path}, line 4 repeats the question of {path}, line 2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"instruction": "a", "output": " "}', r"d\.jsonl, line 2: the answer is empty; fill it in"),
        ('{"instruction": "", "output": "b"}', r"line 2: the question is empty"),
        ('{"instruction": "a", "output": 3}', r"line 2: field 'output' must be a text, found int"),
        ('{"instruction": "a", ', r"line 2: not valid JSON"),
        ('["a"]', r"line 2: expected an object, found list"),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"instruction": "x", "output": "y"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(SdrrlError, match=message):
        read_instructions(InstructionsConfig(path=str(path)))


def test_split_follows_content_not_order(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "d.jsonl", instruction_rows(60))
    rows, _, _ = read_instructions(InstructionsConfig(path=str(path)))
    train, held = split_held_out(rows, 20, None, 7)
    assert (len(train), len(held)) == (40, 20)
    back = split_held_out(rows[::-1], 20, None, 7)
    assert {r["key"] for r in back[1]} == {r["key"] for r in held}
    fewer = split_held_out(rows, 20, 10, 7)
    assert fewer[1] == held
    assert {r["key"] for r in fewer[0]} < {r["key"] for r in train}
    assert split_held_out(rows, 20, None, 8)[1] != held
    with pytest.raises(SdrrlError, match="leaves none for training"):
        split_held_out(rows, 60, None, 7)


def test_ingest_counts(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "d.jsonl", instruction_rows(30) + instruction_rows(2))
    facts = Ingest(InstructionsConfig(str(path), held_out=5, limit=10), "sha", 7).process([{}]).facts()
    assert facts["dropped"] == {"duplicate question": 2, "beyond instructions.limit": 15}
    assert (facts["in"], facts["out"], facts["notes"]) == (32, 15, {"training": 10, "held out": 5})


def synth(count: int, mode: str) -> list[dict[str, str]]:
    rows = [{"key": f"{i:016x}", "question": f"q{i}", "answer": "y", "generated": "y_hat"} for i in range(count)]
    return Sample(mode, 7, 100).process(rows).rows


def test_eq_4_draws_y_and_y_hat_with_probability_one_half() -> None:
    n = 20_000
    drawn = sum(r["origin"] == "y" for r in synth(n, "sample"))
    assert abs(drawn - n / 2) < 5 * (n / 4) ** 0.5
    assert synth(50, "sample") == synth(50, "sample")


def test_questions_that_draw_y_need_no_y_hat() -> None:
    """Generation is skipped where y is drawn; the draw is the same as with y_hat at hand."""
    rows = [{"key": f"{i:016x}", "question": "q", "answer": "y"} for i in range(100)]
    asked = [{**r, "generated": "y_hat"} for r in rows if draws_y_hat(7, r["key"])]
    others = [r for r in rows if not draws_y_hat(7, r["key"])]
    found = {r["source_key"]: r["answer"] for r in Sample("sample", 7, 8).process(others + asked).rows}
    everything = [{**r, "generated": "y_hat"} for r in rows]
    assert found == {r["source_key"]: r["answer"] for r in Sample("sample", 7, 8).process(everything).rows}


def test_both_is_the_union() -> None:
    rows = synth(20, "both")
    assert [r["answer"] for r in rows] == ["y", "y_hat"] * 20
    assert len({r["key"] for r in rows}) == 40


def test_a_draw_without_usable_y_hat_is_dropped_not_swapped() -> None:
    rows = [{"key": f"{i:016x}", "question": "q", "answer": "y", "generated": None} for i in range(200)]
    outcome = Sample("sample", 7, 100).process(rows)
    facts = outcome.facts()
    assert facts["notes"] == {"y": facts["out"]}
    assert facts["dropped"]["no usable y_hat"] == 200 - facts["out"] > 50


def test_filters_judge_answers_with_their_questions() -> None:
    echo = "What is the answer to this?"
    rows = [
        {"key": "a", "question": echo, "answer": echo, "generated": "Forty-two."},
        {"key": "b", "question": echo, "answer": "Six times seven.", "generated": echo},
    ]
    stage = Sample("both", 7, 8, make_filters([("echo", {})]), [{"name": "echo"}], "eng")
    outcome = stage.process(rows)  # type: ignore[arg-type]
    assert [(r["source_key"], r["origin"]) for r in outcome.rows] == [("a", "y_hat"), ("b", "y")]
    assert [(r["key"], r["reason"]) for r in outcome.rejects] == [("a", "y: echo"), ("b", "y_hat: echo")]
    assert stage.settings() != Sample("both", 7, 8).settings() == {"mode": "both", "seed": 7}
    asked = Generate(Echo(), make_filters([("echo", {})]), "eng", 8, {})
    told = asked.process([{"key": "a", "question": echo, "answer": "y"}])  # type: ignore[list-item]
    assert [r["reason"] for r in told.rejects] == ["echo"]


class Echo(tiny_engines.TinyGenerator):
    def __init__(self) -> None:
        self.batches: list[int] = []

    def generate(self, questions: list[str]) -> list[str]:  # type: ignore[override]
        self.batches.append(len(questions))
        return questions


def test_generated_answers_are_batched_and_judged() -> None:
    engine = Echo()
    stage = Generate(engine, make_filters([("repetition", {})]), "eng", 8, {})
    texts = [" fine. ", "  ", "a b c d " * 9, "also fine."]
    outcome = stage.process([{"key": str(i), "question": t, "answer": "y"} for i, t in enumerate(texts)])
    assert engine.batches == [4]
    assert [r["generated"] for r in outcome.rows] == ["fine.", None, None, "also fine."]
    assert [(r["key"], r["reason"]) for r in outcome.rejects] == [
        ("1", "empty or unfinished answer"),
        ("2", "repetition"),
    ]


class Telling(TellingGenerator):
    """Ends every answer but the second, which is cut, and the third, which ran out of room."""

    def __init__(self, unfinished: str) -> None:
        self.unfinished = unfinished

    def answers_to(self, conversations: Sequence[Sequence[Message]]) -> list[Answer]:
        return [
            Answer("Whole.", True, 2),
            Answer("One. Tw", False, 4),
            Answer("", False, 0, NO_ROOM),
            Answer("", True, 0),
        ]


@pytest.mark.parametrize(
    ("unfinished", "kept", "notes"),
    [("drop", None, {}), ("trim", "One.", {USED: 1}), ("keep", "One. Tw", {USED: 1})],
)
def test_finished_and_cut_answers_are_counted(unfinished: str, kept: str | None, notes: dict[str, int]) -> None:
    stage = Generate(Telling(unfinished), make_filters([]), "eng", 8, {})
    outcome = stage.process([{"key": str(i), "question": "q", "answer": "y"} for i in range(4)])
    assert [r["generated"] for r in outcome.rows] == ["Whole.", kept, None, None]
    facts = outcome.facts()
    assert facts["notes"] == {"answers finished": 2, f"answers {CUT}": 1, f"answers {NO_ROOM}": 1, **notes}
    lost = [(r["reason"], r["text"]) for r in outcome.rejects]
    assert lost == [(CUT, "One. Tw")] * (kept is None) + [(NO_ROOM, ""), ("empty answer", "")]


def test_the_card_says_how_answers_ended_and_how_many_draws_were_left_out() -> None:
    notes = {"answers finished": 6, f"answers {CUT}": 2, "CRLF made LF": 1}
    stages = [
        {"name": "generate.eng", "notes": notes, "dropped": {CUT: 2}},
        {"name": "sample.eng", "notes": {"y": 9, "y_hat": 5}, "dropped": {"no usable y_hat": 3}},
    ]
    assert answer_counts({"stages": stages}) == {
        "total": 8, "finished": 6, "share": 0.75, "unfinished": [(CUT, 2)], "used": 0,
    }  # fmt: skip
    found = synth_draws({"stages": stages})
    assert found is not None
    assert (found["left_out"], found["drawn"], found["share"]) == (3, 8 / 17, 5 / 14)
    assert answer_counts({"stages": stages[1:]}) is None


def translated_rows() -> list[dict[str, object]]:
    rows = [
        {"key": str(i), "source_key": str(i), "origin": "y", "question": f"q {i}", "answer": f"a {i}"}
        for i in range(30)
    ]
    return Translate("translate", tiny_engines.TinyTranslator(), {}, ("eng", "por"), 8).process(rows).rows


def test_rejection_costs_only_the_subsets_that_need_the_translation() -> None:
    rows = translated_rows()[:4]
    rows[1]["question_target"] = None
    rows[2]["answer_target"] = None
    rows[3]["question_target"] = rows[3]["answer_target"] = None
    outcome = Subsets(("eng", "por"), {d: d for d in ("LL", "TL", "LT", "TT")}, 8).process(rows)
    found = sorted((r["subset"], r["source_key"]) for r in outcome.rows)
    expected = [("LL", k) for k in "0123"] + [("LT", k) for k in "01"] + [("TL", k) for k in "02"] + [("TT", "0")]
    assert found == expected
    assert outcome.facts()["dropped"] == {
        "TL: translation rejected": 2,
        "LT: translation rejected": 2,
        "TT: translation rejected": 3,
    }
    tl = next(r for r in outcome.rows if r["subset"] == "TL")
    assert (tl["question_language"], tl["answer_language"]) == ("por", "eng")


def test_only_tl_and_lt_ask_for_the_answers_language() -> None:
    rows = Subsets(("eng", "por"), {d: d for d in ("LL", "TL", "LT", "TT")}, 8).process(translated_rows()[:2]).rows
    out = AnswerLanguage(False, 8).process(rows).rows
    for before, after in zip(rows, out, strict=True):
        asked = {"TL": "\nAnswer in English.", "LT": "\nAnswer in Portuguese."}.get(before["subset"], "")
        assert after == {**before, "question": before["question"] + asked}


def test_tau_is_a_lower_bound_and_scores_are_kept() -> None:
    engine = tiny_engines.TinyEstimator()
    outcome = Quality("quality", engine, {}, 0.5, 8, ("eng", "por")).process(translated_rows())
    for row in outcome.rows:
        for c in ("question", "answer"):
            score = engine.score([row[c]], [""])[0]
            assert row[f"{c}_quality"] == pytest.approx(score, abs=1e-4)
            assert (row[f"{c}_target"] is None) == (score < 0.5)
    assert outcome.facts()["dropped"]["below tau"] == len(outcome.rejects) > 5
    again = Quality("again", engine, {}, 0.5, 8, ("eng", "por")).process(outcome.rows)
    assert again.facts()["in"] == outcome.facts()["out"]
    assert not again.rejects


class Reads(tiny_engines.TinyIdentifier):
    def identify(self, texts: list[str]) -> list[tuple[str | None, float]]:  # type: ignore[override]
        return [("eng", 0.9) if "english" in t else ("por", 0.9) for t in texts]


def test_off_target_is_rejected_but_short_and_unsure_are_kept() -> None:
    def kept(text: str, minimum: float = 0.0) -> bool:
        stage = LanguageId("lid", Reads(), {}, "por", (10, minimum), 8)
        row = {"key": "k", "question": "q", "question_target": text, "answer": "a", "answer_target": None}
        return stage.process([row]).rows[0]["question_target"] is not None

    assert kept("uma frase em português")
    assert not kept("an english sentence here")
    assert kept("an english sentence here", minimum=0.95)
    assert kept("english")


def streamed(stage: StreamStage, rows: list[Row], folder: Path) -> list[Row]:
    """The rows that a stage makes of a stream; its counts must add up."""
    workspace = Path(tempfile.mkdtemp(dir=folder))
    outcomes = list(stage.stream(iter(rows), workspace))
    assert all(o.facts() for o in outcomes)
    return [row for o in outcomes for row in o.rows]


def test_held_out_pairs_share_no_sentence_with_training(tmp_path: Path) -> None:
    class Corpus(tiny_engines.TinyCorpus):
        def pairs(self, source: str, target: str):  # type: ignore[no-untyped-def]
            for i in range(40):
                yield f"Source {i % 25}.", f"Alvo {i}."

    rows = streamed(SelectPairs(Corpus(), {}, ("eng", "por"), (12, 8), 7, part=5), [], tmp_path)
    train = [r for r in rows if r["split"] == "train"]
    held = [r for r in rows if r["split"] == "held-out"]
    assert (len(train), len(held)) == (12, 8)
    assert not {r["source"] for r in train} & {r["source"] for r in held}
    with pytest.raises(SdrrlError, match="the parallel corpus for eng-por has 40 pairs"):
        streamed(SelectPairs(Corpus(), {}, ("eng", "por"), (60, 8), 7), [], tmp_path)


def test_templates_make_both_directions_and_one_completion() -> None:
    pair = {"key": "k", "source": "Good day.", "target": "Bom dia."}
    outcome = Templates(("eng", "por"), {"mt": "mt", "comp": "comp"}, ("english", "auto"), 7, 8).process(
        [pair, {"key": "l", "source": "Yes.", "target": "Sim."}]
    )
    assert [(r["subset"], r["answer"]) for r in outcome.rows[:3]] == [
        ("mt", "Bom dia."),
        ("mt", "Good day."),
        ("comp", "Bom dia."),
    ]
    assert outcome.rows[1]["question"] == "Translate the following sentence from Portuguese to English.\nBom dia."
    assert outcome.rows[2]["question"].endswith("\nBom")
    assert outcome.facts()["dropped"] == {"too short to split": 1}


def test_order_is_independent_of_input_order_and_drops_repeats(tmp_path: Path) -> None:
    rows = [{"subset": "LL", "question": f"q{i}", "answer": "a"} for i in range(20)]

    def ordered(given: list[Row], seed: int = 7) -> list[Row]:
        return streamed(Order(seed), given, tmp_path)

    first = ordered(rows + rows[:3])
    assert first == ordered(rows[::-1]) != ordered(rows, seed=8)
    assert len({r["key"] for r in first}) == len(first) == 20


def question(key: str, text: str, target: str | None) -> Row:
    return {
        "key": key,
        "source_key": key.split("/", maxsplit=1)[0],
        "question": text,
        "question_target": target,
        "answer": "a",
    }


@pytest.mark.parametrize("reverse", [False, True])
def test_repeated_questions_lose_their_translation(tmp_path: Path, reverse: bool) -> None:
    rows = [
        question("a", "What is the capital of Peru?", "Qual é a capital do Peru?"),
        question("b", "Name the capital city of Peru.", "Qual é a capital do Peru?!"),  # the same translation
        question("c/y", "Why is the sky blue at noon?", "Por que o céu é azul ao meio-dia?"),
        question("c/y_hat", "Why is the sky blue at noon?", "Por que o céu é azul ao meio-dia?"),  # the other answer
        question("d", "Yes?", "Sim?"),
        question("e", "Yes!", "Sim?"),  # too short to tell
        question("f", "A question without translation here", None),
    ]
    rows = rows[::-1] if reverse else rows
    out = streamed(Duplicates("duplicates", Duplicate(), ("eng", "por"), 2), rows, tmp_path)
    assert [r["key"] for r in out] == [r["key"] for r in rows]
    lost = {r["key"] for r, before in zip(out, rows, strict=True) if r != before}
    assert lost == {"b"}
    assert next(r for r in out if r["key"] == "b")["question_target"] is None


def test_empty_subset_is_an_error() -> None:
    with pytest.raises(SdrrlError, match="subset TT has no sample left"):
        require_rows({"LL": 3, "TT": 0})
