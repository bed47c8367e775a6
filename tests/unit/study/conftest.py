"""A study on paper: three methods, two seeds, scores made up by a rule that the tests know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdrrl_nemo.study.config import MethodConfig, StudyConfig, check
from sdrrl_nemo.study.plan import Markers, plan, runs
from tests.launch import ROOT

DATA = ROOT / "configs" / "data"
LEVELS = {"base": 0.0, "sft": 1.0, "sdrrl": 3.0, "no_cross": 2.0}
"""Mean of every measure of a method; higher is better in all of them but the loss."""


@pytest.fixture
def study(tmp_path, monkeypatch) -> StudyConfig:
    monkeypatch.chdir(ROOT)
    config = StudyConfig(
        title="A study <of> methods",
        work_dir=str(tmp_path / "work"),
        output=str(tmp_path / "out" / "study"),
        base_model="work/models/x",
        seeds=2,
        training="configs/study/train_quick.yaml",
        methods=[
            MethodConfig("sft", "SFT", str(DATA / "demo_por_sft.yaml"), published="SFT"),
            MethodConfig("sdrrl", "SDRRL", str(DATA / "demo_por.yaml"), published="SDRRL"),
            MethodConfig(
                "no_cross", "SDRRL − D_TL, D_LT", str(DATA / "demo_por_no_cross.yaml"),
                published="- D_TL and D_LT", ablation=True,
            ),
        ],
    )  # fmt: skip
    config.statistics.resamples = 500
    check(config)
    return config


def measure(name: str, values: list[float], **about: Any) -> dict[str, Any]:
    """One measure of kind ``mean``; other fields as Measure has them."""
    return {
        "id": name, "group": "Benchmarks", "title": name, "language": "por", "unit": "%", "better": "higher",
        "kind": "mean", "published": None, "keys": [str(i) for i in range(len(values))],
        "items": [[v, 1.0] for v in values], **about,
    }  # fmt: skip


def measures(method: str, number: int, items: int = 8) -> dict[str, Any]:
    """Item i of a method: its level, plus i, plus a little for the seed; losses the other way round."""
    level = LEVELS[method] + 0.1 * number
    up = [10 * level + i for i in range(items)]
    out = {
        "belebele.por": measure("belebele.por", up, published=["BELEBELE", "accuracy", "target"]),
        "belebele.eng": measure("belebele.eng", up, language="eng", published=["BELEBELE", "accuracy", "english"]),
        "mkqa.por": measure("mkqa.por", up, published=["MKQA", "F1", "target"]),
        "xlsum.por.rougeL": measure("xlsum.por.rougeL", up, published=["XL-SUM", "ROUGE-L", "target"]),
        "flores.eng-por.bleu": measure("flores.eng-por.bleu", up, published=["FLORES", "BLEU", "en-xx"]),
        "loss.questions.por-por": measure(
            "loss.questions.por-por", [5 - level + 0.01 * i for i in range(items)], better="lower", unit="nats/token"
        ),
        "off_target.por": measure("off_target.por", up, better="lower"),
    }
    out["off_target.por"]["items"] = [[0.0, 0.0]] * items  # nothing could be judged
    return out


def finish(config: StudyConfig, names: list[str]) -> None:
    """Pretend that the runs of these names are trained and measured."""
    markers = Markers(config.work_dir)
    stages = {s.name: s for s in plan(config, "study.yaml", [])}
    for run in runs(config):
        if run.name not in names:
            continue
        run.scores.mkdir(parents=True)
        answer = {"question": "Q <b>?", "reference": "R", "text": f"from {run.name} </script>", "finished": False}
        (run.scores / "measures.json").write_text(
            json.dumps(
                {
                    "run": run.name,
                    "measures": measures(run.method, run.number),
                    "answers": {"answers.por": [answer]},
                    "skipped": {"mkqa.bul": "not covered"},
                }
            )
        )
        if run.number:
            run.run_dir.mkdir(parents=True)
            rows = [
                {"step": k, "loss": 6.0 / k, "loss_LL": 1.0, "loss_TT": 1.0, "tokens": 100, "seconds": 1.5,
                 "skipped": 0, "memory_mib": 10.0}
                for k in (1, 2, 3)
            ]  # fmt: skip
            (run.run_dir / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
            markers.mark(stages[f"train/{run.name}"], 4.0)
        markers.mark(stages[f"measure/{run.name}"], 2.0)


@pytest.fixture
def finished(study) -> StudyConfig:
    finish(study, [r.name for r in runs(study)])
    return study


@pytest.fixture
def unfinished(study) -> StudyConfig:
    finish(study, ["base", "sft-1", "sdrrl-1"])
    return study


@pytest.fixture
def work(study) -> Path:
    return Path(study.work_dir)
