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
            "code-switch-e663d9bea4b15ec7",
            "duplicates-0ccc3165d4b6d52e",
            "generate-1ce8531ce30d84f6",
            "held-out-heuristics-cbf1ccb4d7d87e25",
            "held-out-language-id-24c280e7460defed",
            "held-out-quality-28964976bc2b628f",
            "held-out-translate-b9d2a12c145b0dff",
            "heuristics-84cf689034b1b29a",
            "ingest-52d15c108db8d25b",
            "language-id-5ca91fb5b1998c0a",
            "order-15f8e6d0840a6141",
            "parallel-570e2de69ad056f4",
            "quality-0a63632c1228eb65",
            "sample-8ad66c90f1162008",
            "subsets-008f58656ca3808a",
            "templates-fceceb527fac54fd",
            "translate-8497ff4b589a7b2c",
        ],
        "ce8ec99238d5dd13812d17225928edc6e945e2c546a007212c1d21bd6abd757e",
        ["5616be02e36c9537", "fed312aacda05c7a", "2a8f3db7ba9f73b8"],
        "6dc9faf1609f84be",
    ),
    "both": (
        ["subsets.answer_language=request", "synth.mode=both"],
        [
            "answer-language-a4a37173573bff3f",
            "code-switch-2c48e8eba32ff0ba",
            "duplicates-2defc02ab768936a",
            "generate-a580f634858418e3",
            "held-out-heuristics-cbf1ccb4d7d87e25",
            "held-out-language-id-24c280e7460defed",
            "held-out-quality-28964976bc2b628f",
            "held-out-translate-b9d2a12c145b0dff",
            "heuristics-27d38c2cb458c46d",
            "ingest-52d15c108db8d25b",
            "language-id-9ce67b7d2db7f795",
            "order-f203e5cf1ff951a6",
            "parallel-570e2de69ad056f4",
            "quality-ea7ec496a69b2a33",
            "sample-2adb0fa526dff675",
            "subsets-fcf574e9140346a0",
            "templates-fceceb527fac54fd",
            "translate-1d39c6ca1e653199",
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
