"""Scores from a language model: what counts as one, what happens to the others, and the stage that asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.chosen_engines import Engines
from sdrrl_nemo.data.config import EngineConfig, LlmJudgeConfig, PreprocessConfig
from sdrrl_nemo.data.engines.quality.openai_judge import OpenAiJudge, score_in
from sdrrl_nemo.data.rows import TranslatedRow
from sdrrl_nemo.data.stages.checks.llm_judge import UNUSABLE, LlmJudge
from sdrrl_nemo.data.validation import import_plugins, validate
from tests.unit.data.tiny_run import tiny_config
from tests.unit.engines.generate.test_openai_server import Reply, Server, error, server

__all__ = ["server"]
"""The fixture of the fake server, for pytest to find here."""


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"score": 8}', 8),
        ('```json\n{"score": 7.5, "why": "2 slips"}\n```', 7.5),
        ('{"why": "2 slips", "score": "9"}', 9),
        ("8", 8),
        ("8/10", 8),
        ("Score: 0", 0),
        ("<think>At first 3 or 4.</think>\n10", 10),
        ("11", None),
        ("-3", None),
        ('{"score": 85}', None),
        ('{"score": true}', None),
        ('{"score": null, "errors": 4}', None),
        ("{broken 8}", None),
        ("very good", None),
        ("", None),
    ],
)
def test_what_counts_as_a_score(reply: str, score: float | None) -> None:
    assert score_in(reply) == score


def test_of_a_cut_reply_only_the_object_counts() -> None:
    assert score_in("Let me look at the 3 sentences of", finished=False) is None
    assert score_in('{"score": 6} because of the', finished=False) == 6


def said(text: str) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return 200, json.dumps({"choices": [choice]}).encode(), {}


def judge(server: Server, **options: object) -> OpenAiJudge:
    return OpenAiJudge("tiny", server.url, **{"backoff_s": 0.001, "retries": 2, **options})  # type: ignore[arg-type]


def by_text(server: Server, replies: dict[str, Reply]) -> None:
    server.trouble = lambda question, attempt: next(reply for text, reply in replies.items() if text in question)


def test_scores_in_order_with_prompt_and_temperature(server: Server) -> None:
    by_text(server, {"um gato": said('{"score": 9}'), "um cão": said("2"), "nada": said("no idea")})
    engine = judge(server)
    assert engine.rate(["a cat", "a cat", "x"], ["um gato", "um cão", "nada"], ("eng", "por")) == [9, 2, None]
    body = next(b for b in server.requests if "um gato" in b["messages"][0]["content"])
    assert body["temperature"] == 0
    assert body["model"] == "tiny"
    assert "from English into Portuguese" in body["messages"][0]["content"]
    assert '{"score": n}' in body["messages"][0]["content"]
    assert max(server.tries.values()) == 3  # the reply without a score was asked for again


def test_a_refused_pair_has_no_score_and_a_failing_server_stops_the_run(server: Server) -> None:
    by_text(server, {"long": error(400, "too long"), "ok": said("8")})
    assert judge(server).rate(["long", "ok"], ["l", "o"], ("eng", "por")) == [None, 8]
    server.trouble = lambda question, attempt: error(503, "busy")
    with pytest.raises(SdrrlError, match=r"503 busy \(3 tries\)"):
        judge(server).rate(["a"], ["b"], ("eng", "por"))


@pytest.mark.parametrize(("unusable", "left"), [("keep", 2), ("reject", 1)])
def test_the_stage_rejects_low_scores_and_counts_replies_without_one(server: Server, unusable: str, left: int) -> None:
    by_text(server, {"boa": said("7"), "má": said("6.5"), "estranha": said("?")})
    section = LlmJudgeConfig(EngineConfig("openai_judge"), 7.0, unusable)
    row: TranslatedRow = {  # type: ignore[typeddict-item]
        **{"key": "1", "question": "q", "answer": "a", "question_target": "boa", "answer_target": "má"}
    }
    other: TranslatedRow = {**row, "key": "2", "question_target": "estranha", "answer_target": None}
    outcome = LlmJudge("llm-judge", judge(server), section, ("eng", "por"), 8).process([row, other])
    assert (outcome.entered, outcome.left) == (3, left)
    assert [r["answer_target"] for r in outcome.rows] == [None, None]
    assert outcome.rows[0]["question_target"] == "boa"
    assert outcome.notes == {UNUSABLE: 1}
    assert ("LLM judge", "6.5 < 7") in [(r["reason"], r["detail"]) for r in outcome.rejects]


def test_options_that_decide_are_in_the_identity_and_wrong_ones_are_refused(server: Server) -> None:
    assert judge(server).identity != judge(server, revision="abc").identity
    assert judge(server).identity == judge(server, concurrency=2).identity
    with pytest.raises(SdrrlError, match=r"extra\.temperature"):
        judge(server, extra={"temperature": 1})
    with pytest.raises(SdrrlError, match="max_new_tokens is 0"):
        judge(server, max_new_tokens=0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("llm_judge.unusable=drop", r"llm_judge\.unusable: unknown value 'drop'"),
        ("llm_judge.minimum=70", r"llm_judge\.minimum: 70(\.0)? is not between 0 and 10"),
        ("llm_judge.engine.name=openai", r"llm_judge\.engine\.name: unknown LLM judge backend 'openai'.*openai_judge"),
    ],
)
def test_refusals(tmp_path: Path, override: str, message: str) -> None:
    config = load_config(PreprocessConfig, tiny_config(tmp_path), [override])
    import_plugins(config.plugins)

    def start() -> None:
        validate(config)
        Engines(config)

    with pytest.raises(SdrrlError, match=message):
        start()


def test_the_preflight_has_the_judge_where_it_is_named(tmp_path: Path, server: Server) -> None:
    named = [
        "llm_judge.engine.name=openai_judge",
        f"llm_judge.engine.options={{model: other, base_url: '{server.url}'}}",
    ]
    config = load_config(PreprocessConfig, tiny_config(tmp_path), named)
    import_plugins(config.plugins)
    (use,) = [use for use in Engines(config).uses if use.role == "llm_judge"]
    with pytest.raises(SdrrlError, match="does not serve model 'other'"):
        use.engine.try_out()
