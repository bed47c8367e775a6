"""Sets of one question and one answer a record are made as before there were conversations: same keys, same bytes.

The literals were written by the code as it was then, so a finished folder of that time is taken up and not made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from pathlib import Path

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.data.config import PreprocessConfig, without_later
from sdrrl_nemo.data.execution.stage_runner import fingerprint
from sdrrl_nemo.data.text import words
from sdrrl_nemo.data.validation import import_plugins
from tests.unit.data.tiny_run import tiny_config
from tools.preprocess_sdrrl import preprocess

QUESTIONS = "8e44d75ad7efee14f46cfa66f5bbc3b5691dc503f72becd9b7744eff5c77d6ab"
PAIRS = "5083926f9f7637da558a844aee5415d898b1e27077317c95eb0d36d28fb42f59"
RUNS = {
    "plain": (
        [],
        [
            "code-switch-af41a3c1ac5f8c9a",
            "duplicates-e3fd250d4cd280b1",
            "generate-1ce8531ce30d84f6",
            "held-out-heuristics-7b85c5c4d3cd4ddc",
            "held-out-language-id-b917c795c469d9e7",
            "held-out-quality-8c693d6f04699389",
            "held-out-translate-37801008235ae50c",
            "heuristics-bdf8ef73f8068cf0",
            "ingest-52d15c108db8d25b",
            "language-id-0dbea284467cec67",
            "order-48e0b805a02953d5",
            "parallel-570e2de69ad056f4",
            "quality-424abd9cd93e694f",
            "sample-8ad66c90f1162008",
            "subsets-31ee2eda1bd92d2f",
            "templates-fceceb527fac54fd",
            "translate-c8ac9b53a17fac5c",
        ],
        "ce8ec99238d5dd13812d17225928edc6e945e2c546a007212c1d21bd6abd757e",
        ["5616be02e36c9537", "fed312aacda05c7a", "2a8f3db7ba9f73b8"],
        "6dc9faf1609f84be",
    ),
    "both": (
        ["subsets.answer_language=request", "synth.mode=both"],
        [
            "answer-language-f44e2f1f150612ba",
            "code-switch-4bfa64329c539525",
            "duplicates-8a4f3617b7784939",
            "generate-a580f634858418e3",
            "held-out-heuristics-7b85c5c4d3cd4ddc",
            "held-out-language-id-b917c795c469d9e7",
            "held-out-quality-8c693d6f04699389",
            "held-out-translate-37801008235ae50c",
            "heuristics-63e137d594343b45",
            "ingest-52d15c108db8d25b",
            "language-id-6974bb83df23df06",
            "order-c3bb30f455e9adba",
            "parallel-570e2de69ad056f4",
            "quality-4b2b96c7c2626f2f",
            "sample-2adb0fa526dff675",
            "subsets-ac7fdd052b384248",
            "templates-fceceb527fac54fd",
            "translate-4a820443d1cbdbad",
        ],
        "a52700572faf0ad1225ef03a63ae99b3a7c6634a24b02c2824d7508aba86bafc",
        ["2a8f3db7ba9f73b8", "248dd405a6288d7c", "42629404dc0723fb"],
        "f067088002e68df3",
    ),
}
"""Name -> (overrides, stages but ``tokenize``, SHA-256 of transfer_set.jsonl, first keys in it, request)."""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", RUNS)
def test_one_question_and_one_answer_a_record(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "identity", lambda: "words")  # ICU's version, which differs between machines
    overrides, stages, transfer_set, keys, request = RUNS[name]
    config = load_config(PreprocessConfig, str(tiny_config(tmp_path)), overrides)
    import_plugins(config.plugins)
    with contextlib.redirect_stdout(io.StringIO()):
        preprocess(config, tmp_path / "out")
    out = tmp_path / "out"
    assert [p.name for p in sorted((out / "stages").iterdir()) if not p.name.startswith("tokenize")] == stages
    assert sha256(out / "transfer_set.jsonl") == transfer_set
    lines = (out / "transfer_set.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["key"] for line in lines[:3]] == keys
    assert sha256(out / "heldout/eng-por/questions.jsonl") == QUESTIONS
    assert sha256(out / "heldout/eng-por/pairs.jsonl") == PAIRS
    asked = without_later(config)
    del asked["output_dir"], asked["execution"]
    asked["instructions"]["path"], asked["model"] = "p", "m"
    assert fingerprint(asked) == request
