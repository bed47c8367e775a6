"""tools/evaluate.py on the benchmarks, killed with SIGKILL and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.eval.conftest import make_model_folder
from tests.warm import Forked

ROOT = Path(__file__).resolve().parents[2]
YAML = """
kind: benchmarks
models: {{tiny: {model}}}
data_dir: {root}/data/benchmarks
names: [belebele, belebele_letter, mkqa, flores]
bleu_tokenize: 13a
limits: {{belebele: 6, belebele_letter: 6, mkqa: 12, flores: 12}}
max_new_tokens: {{belebele_letter: 4, mkqa: 12, flores: 24}}
batch_tokens: 2000
"""


def start(config: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "tools" / "evaluate.py"), "--config", str(config), f"output_dir={output}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def forked(config: Path, output: Path) -> Forked:
    """The same with the imports done already."""
    arguments = ["--config", str(config), f"output_dir={output}"]
    return Forked(ROOT / "tools" / "evaluate.py", *arguments, log=output.with_suffix(".log"))


def stored(output: Path) -> dict[str, int]:
    """Finished tasks and when they were written."""
    return {p.name.split(".json")[0]: p.stat().st_mtime_ns for p in output.glob("tiny/tasks/*/*.json")}


def scores(output: Path) -> dict[str, Any]:
    """Everything in results.json but times."""
    tasks = json.loads((output / "tiny" / "results.json").read_text(encoding="utf-8"))["tasks"]
    return {n: {k: v for k, v in t.items() if "seconds" not in k} for n, t in tasks.items()}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    model = make_model_folder(tmp_path / "model", seed=3)
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 4096}))
    path = tmp_path / "benchmarks.yaml"
    path.write_text(YAML.format(model=model, root=ROOT), encoding="utf-8")
    return path


def test_killed_evaluation_goes_on_where_it_was(config: Path, tmp_path: Path):
    output = tmp_path / "killed"
    first = start(config, output)
    deadline = time.monotonic() + 300
    while len(stored(output)) < 3:
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline, "no task was finished in time"
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    before = stored(output)
    assert 3 <= len(before) < 8
    assert not (output / "tiny" / "results.json").exists()

    again = forked(config, output)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert f"8 tasks, {len(before)} already done" in said
    after = stored(output)
    assert len(after) == 8 and {n: after[n] for n in before} == before

    whole = forked(config, tmp_path / "whole")
    said, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    assert scores(output) == scores(tmp_path / "whole")


def test_missing_data_set_is_one_sentence_before_the_model_is_loaded(config: Path, tmp_path: Path):
    text = config.read_text(encoding="utf-8").replace(f"{ROOT}/data/benchmarks", str(tmp_path / "nowhere"))
    config.write_text(text, encoding="utf-8")
    process = forked(config, tmp_path / "out")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert said.startswith("error: ") and f"{tmp_path}/nowhere/Belebele/eng_Latn.jsonl (or " in said
    assert "no such file; put" in said
