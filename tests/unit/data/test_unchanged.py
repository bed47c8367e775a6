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
            "code-switch-59db69781a52cae9",
            "duplicates-2ca06bf584904444",
            "generate-1ce8531ce30d84f6",
            "held-out-heuristics-6e45c9aea78a6c93",
            "held-out-language-id-5a3bf762df3bcf8e",
            "held-out-quality-8c693d6f04699389",
            "held-out-translate-37801008235ae50c",
            "heuristics-8fe902bcf0db2acf",
            "ingest-52d15c108db8d25b",
            "language-id-7d817c8d98c2e4c2",
            "order-2f2c3075271aa899",
            "parallel-570e2de69ad056f4",
            "quality-424abd9cd93e694f",
            "sample-8ad66c90f1162008",
            "subsets-14acef89db8c7b29",
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
            "answer-language-1c0a2909ddee9172",
            "code-switch-b8d8afb6e92ec722",
            "duplicates-e26c37e7cb996591",
            "generate-a580f634858418e3",
            "held-out-heuristics-6e45c9aea78a6c93",
            "held-out-language-id-5a3bf762df3bcf8e",
            "held-out-quality-8c693d6f04699389",
            "held-out-translate-37801008235ae50c",
            "heuristics-c92b488abd6bf353",
            "ingest-52d15c108db8d25b",
            "language-id-4d28e5de7629eebc",
            "order-3c6132877ae78c8a",
            "parallel-570e2de69ad056f4",
            "quality-4b2b96c7c2626f2f",
            "sample-2adb0fa526dff675",
            "subsets-63a8e16a5a94c598",
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
