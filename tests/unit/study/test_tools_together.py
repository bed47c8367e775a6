"""tools/study.py: a tiny model is trained, exported and measured by the real tools, once.

The first run is in this process, whose fork server has imported NeMo for other tests too; the others are commands.
Then two methods in one process, held against a process a stage.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.study.config import StudyConfig
from sdrrl_nemo.study.execute import Executor
from sdrrl_nemo.study.measure import measure
from sdrrl_nemo.study.plan import Markers, Run, plan
from sdrrl_nemo.train.config import RunConfig
from tests.launch import ROOT, python
from tests.runs import metric_rows
from tests.tiny import packed_set, tiny_model
from tests.unit.eval.conftest import PAIRS, QUESTIONS
from tests.versions import WITHOUT_OFFICIAL_ROUGE
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
    benchmarks["dtype"] = "float32"
    benchmarks["limits"] = {"belebele": 1, "belebele_letter": 1, "mkqa": 1, "xlsum": 1, "flores": 2, "off_target": 1,
                            "alignment": 4}  # fmt: skip
    study = yaml.safe_load((ROOT / "configs/study/smollm2_por.yaml").read_text(encoding="utf-8"))
    study |= {
        "training": "configs/study/train_quick.yaml",
        "learning_rates": {"grid": []},
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
    study["held_out"]["generation"] |= {"questions": 8, "pairs": 8, "max_new_tokens": 24, "dtype": "float32"}
    benchmarks["max_new_tokens"] |= {"xlsum": 24, "flores": 32}
    (root / "benchmarks.yaml").write_text(yaml.safe_dump(benchmarks))
    path = root / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    config = load_config(StudyConfig, path)
    Markers(config.work_dir).mark(next(s for s in plan(config, str(path), []) if s.kind == "data"), 1.0)
    return path


@WITHOUT_OFFICIAL_ROUGE
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
    budget = load_config(RunConfig, steps.training).trainer
    assert trained["state"] == "measure" and trained["steps"] == budget.max_steps and trained["tokens"] > 0
    assert document["measures"][0]["values"].keys() == {"base", "sdrrl"}
    left = {p.name for p in (tmp_path / "work" / "runs" / "sdrrl-1").iterdir()}
    assert {"metrics.jsonl", "config.yaml", "provenance.json"} <= left
    assert not left & {"checkpoints", "hf", "hf-step-000004"}  # half a gigabyte each for a real model
    assert not (tmp_path / "work/scores/sdrrl-1/converted").exists()
    followed = [tokens for tokens, _ in document["tracking"]["sdrrl"]]
    assert len(followed) == 3 and followed[0] == 0 and followed[1] < followed[2] == trained["tokens"]
    assert document["maps"].keys() == {"base", "sdrrl"}
    assert "<svg" in (tmp_path / "out" / "study.html").read_text(encoding="utf-8")

    again = python("tools/study.py", "--config", str(path))
    assert again.returncode == 0 and "7 stages, 7 were done before" in again.stdout

    changed = python("tools/study.py", "--config", str(path), "held_out.loss.questions=2")
    assert changed.returncode == 2
    assert "measure/base was done with other settings; choose another work_dir" in changed.stdout.splitlines()[-1]


def two_methods(root: Path, grid: list[float], lr: float = 1e-3) -> Path:
    """A short study of two methods whose rows differ in length; ``grid``: of learning rates, ``lr``: without one."""
    path = prepare(root)
    study = yaml.safe_load(path.read_text(encoding="utf-8"))
    shipped = yaml.safe_load((ROOT / "configs/study/smollm2_por.yaml").read_text(encoding="utf-8"))
    budget = yaml.safe_load((ROOT / "configs/study/train.yaml").read_text(encoding="utf-8"))
    trainer = {"precision": "fp32", "max_steps": 3, "micro_batch_size": 1, "global_batch_size": 2}
    budget["trainer"] |= {**trainer, "checkpoint_optimizer": not grid}
    budget["optim"] |= {"lr": lr}
    (root / "train.yaml").write_text(yaml.safe_dump(budget))
    study |= {
        "training": str(root / "train.yaml"),
        "methods": [*study["methods"], next(m for m in shipped["methods"] if m["name"] == "sft")],
        "benchmarks": "",
        "tracking": {},
        "learning_rates": {"grid": grid, "steps": 2},
        "keep": "exports",
        "parallel": 1,
    }
    path.write_text(yaml.safe_dump(study))
    for method, length in (("sdrrl", 64), ("sft", 48)):
        for name, samples in (("train", 61), ("validation", 9)):
            packed_set(
                root / "work/data" / method / "packed", root / "model", seq_length=length, samples=samples, name=name
            )
    config = load_config(StudyConfig, path)
    for stage in plan(config, str(path), []):
        if stage.kind == "data":
            Markers(config.work_dir).mark(stage, 1.0)
    return path


def test_one_process_gives_the_bits_of_a_process_a_stage(tmp_path, monkeypatch, capfd):
    """Method after method in one process, learning rates chosen on the way; the last one again, a process a stage."""
    monkeypatch.chdir(ROOT)
    together = two_methods(tmp_path / "together", [1e-4, 1e-3])
    assert run(main, ["--config", str(together), "--in-process"]) == 0, capfd.readouterr()
    document = read_json(tmp_path / "together/out/study.json")
    chosen = document["learning_rates"]["sft"]
    assert {r["lr"]: r["loss"] for r in chosen["grid"]}[chosen["lr"]] == min(r["loss"] for r in chosen["grid"])
    assert chosen["grid"][0]["loss"] != chosen["grid"][1]["loss"]

    apart = two_methods(tmp_path / "apart", [], lr=chosen["lr"])
    config = load_config(StudyConfig, apart)
    stages = [s for s in plan(config, str(apart), []) if s.name in ("train/sft-1", "export/sft-1")]
    assert Executor(config.work_dir, 1, 1).run(stages) == 2
    one, other = (Run("sft", 1, tmp_path / root / "work") for root in ("together", "apart"))
    assert metric_rows(one.run_dir) == metric_rows(other.run_dir) != []
    weights = [(r.export / "model.safetensors").read_bytes() for r in (one, other)]
    assert weights[0] == weights[1] != (tmp_path / "apart/model/model.safetensors").read_bytes()
    measure(config, other, str(other.export))
    found = [read_json(r.scores / "measures.json")["measures"] for r in (one, other)]
    assert found[0] == found[1] and len(found[0]) > 10

    capfd.readouterr()
    assert run(main, ["--config", str(together), "--in-process", "--dry-run"]) == 0
    assert "0 of 13 stages are left" in capfd.readouterr().out
