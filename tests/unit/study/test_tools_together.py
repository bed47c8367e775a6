"""tools/study.py: a tiny model is trained, exported and measured by the real tools, once.

The first run is in this process, whose fork server has imported NeMo for other tests too; the others are commands.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.study.config import StudyConfig
from sdrrl_nemo.study.plan import Markers, plan
from tests.launch import ROOT, python
from tests.tiny import packed_set, tiny_model
from tests.unit.eval.conftest import PAIRS, QUESTIONS
from tools.study import main

FIELDS = ("question", "answer", "question_target", "answer_target")


def prepare(root: Path) -> Path:
    """A study of one method whose transfer set is there already; returns its configuration file."""
    model = tiny_model(root / "model", layers=2)
    about = json.loads((model / "config.json").read_text())
    about["max_position_embeddings"] = 2048
    (model / "config.json").write_text(json.dumps(about))
    data = root / "work" / "data" / "sdrrl"
    packed_set(data / "packed", model)
    held = data / "heldout" / "eng-por"
    held.mkdir(parents=True)
    rows = {
        "questions": [{"key": str(i), **dict(zip(FIELDS, q, strict=True))} for i, q in enumerate(QUESTIONS)],
        "pairs": [{"key": str(i), "source": s, "target": t} for i, (s, t) in enumerate(PAIRS)],
    }
    for name, content in rows.items():
        (held / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in content))
    benchmarks = yaml.safe_load((ROOT / "configs/study/benchmarks.yaml").read_text(encoding="utf-8"))
    benchmarks["limits"] = {"belebele": 1, "belebele_letter": 1, "mkqa": 1, "xlsum": 1, "flores": 2, "off_target": 1,
                            "alignment": 4}  # fmt: skip
    (root / "benchmarks.yaml").write_text(yaml.safe_dump(benchmarks))
    study = yaml.safe_load((ROOT / "configs/study/smollm2_por.yaml").read_text(encoding="utf-8"))
    study |= {
        "work_dir": str(root / "work"),
        "output": str(root / "out" / "study"),
        "base_model": str(model),
        "benchmarks": str(root / "benchmarks.yaml"),
        "seeds": 1,
        "methods": [m for m in study["methods"] if m["name"] == "sdrrl"],
        "statistics": {"resamples": 200},
        "tracking": {"methods": ["sdrrl"], "every": 4},
    }
    study["held_out"]["alignment"]["perplexity"] = 3
    path = root / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    config = load_config(StudyConfig, path)
    Markers(config.work_dir).mark(next(s for s in plan(config, str(path), []) if s.kind == "data"), 1.0)
    return path


def test_a_study_runs_once_and_only_once(tmp_path, monkeypatch, capfd):
    path = prepare(tmp_path)
    monkeypatch.chdir(ROOT)
    code = run(main, ["--config", str(path)])
    said = capfd.readouterr()
    assert code == 0, said
    assert f"report: {tmp_path}/out/study.html" in said.out and "7 stages, 1 were done before" in said.out
    document = read_json(tmp_path / "out" / "study.json")
    assert document["missing"] == [] and len(document["measures"]) >= 30
    trained = document["runs"][0]
    steps = load_config(StudyConfig, path)
    budget = yaml.safe_load((ROOT / steps.training).read_text(encoding="utf-8"))["trainer"]
    assert trained["state"] == "measure" and trained["steps"] == budget["max_steps"] and trained["tokens"] > 0
    assert document["measures"][0]["values"].keys() == {"base", "sdrrl"}
    left = {p.name for p in (tmp_path / "work" / "runs" / "sdrrl-1").iterdir()}
    assert {"metrics.jsonl", "config.yaml", "provenance.json"} <= left
    assert not left & {"checkpoints", "hf", "hf-step-000004"}  # half a gigabyte each for a real model
    followed = [tokens for tokens, _ in document["tracking"]["sdrrl"]]
    assert len(followed) == 3 and followed[0] == 0 and followed[1] < followed[2] == trained["tokens"]
    assert document["maps"].keys() == {"base", "sdrrl"}
    assert "<svg" in (tmp_path / "out" / "study.html").read_text(encoding="utf-8")

    again = python("tools/study.py", "--config", str(path))
    assert again.returncode == 0 and "7 stages, 7 were done before" in again.stdout

    changed = python("tools/study.py", "--config", str(path), "held_out.loss.questions=2")
    assert changed.returncode == 2
    assert "measure/base was done with other settings; choose another work_dir" in changed.stdout.splitlines()[-1]
