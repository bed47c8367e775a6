"""All measures of a tiny model: items add up to the runner's own figures, a second call computes nothing anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.scorers.rouge import scorer
from sdrrl_nemo.study import config as study_config
from sdrrl_nemo.study.aggregate import value
from sdrrl_nemo.study.execute import Executor
from sdrrl_nemo.study.measure import measure_stage
from sdrrl_nemo.study.plan import KINDS, Run, data_dir
from sdrrl_nemo.study.run import run_stages
from tests.launch import ROOT
from tests.unit.eval.conftest import PAIRS, QUESTIONS, make_model_folder
from tests.versions import WITHOUT_OFFICIAL_ROUGE

LIMITS = {"belebele": 2, "belebele_letter": 1, "mkqa": 3, "xlsum": 2, "flores": 3, "off_target": 3, "alignment": 5}
FIGURES = {
    "belebele.por": ("belebele.por", "accuracy"),
    "belebele_letter.eng": ("belebele_letter.eng", "accuracy"),
    "mkqa.por": ("mkqa.por", "f1"),
    "xlsum.eng.rouge1": ("xlsum.eng", "rouge1"),
    "xlsum.por.rougeL": ("xlsum.por", "rougeL"),
    "flores.eng-por.bleu": ("flores.eng-por", "bleu"),
    "flores.por-eng.chrf": ("flores.por-eng", "chrf"),
    "off_target.eng": ("off_target.eng", "rate"),
    "instructions.eng-por.precision_at_1": ("alignment.eng-por", "precision_at_1"),
    "instructions.eng-por.margin": ("alignment.eng-por", "margin"),
}
"""Measure -> task and metric of the benchmark runner that it must equal."""


@pytest.fixture
def tiny(study, tmp_path, monkeypatch):
    """The study with a tiny base model, held-out files of a few rows and every benchmark on a few items."""
    folder = make_model_folder(tmp_path / "model", seed=1)
    about = json.loads((folder / "config.json").read_text())
    about["max_position_embeddings"] = 4096  # bytes: a benchmark's passage is long
    (folder / "config.json").write_text(json.dumps(about))
    study.base_model = str(folder)
    held = data_dir(study, "sdrrl") / "heldout" / "eng-por"
    held.mkdir(parents=True)
    names = ("question", "answer", "question_target", "answer_target")
    rows = [{"key": f"{i:016x}", **dict(zip(names, row, strict=True))} for i, row in enumerate(QUESTIONS)]
    pairs = [{"key": f"{i:016x}", "source": s, "target": t} for i, (s, t) in enumerate(PAIRS)]
    for name, content in (("questions", rows), ("pairs", pairs)):
        (held / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in content))
    benchmarks = load_config(
        BenchmarkConfig,
        ROOT / "configs/study/benchmarks.yaml",
        ["max_new_tokens={xlsum: 6, flores: 6, off_target: 40}", "dtype=float32"],
    )
    benchmarks.limits, benchmarks.max_new_tokens["flores"] = dict(LIMITS), 6
    monkeypatch.setattr("sdrrl_nemo.study.measure.benchmark_config", lambda config: benchmarks)
    h = study.held_out
    h.generation = study_config.GenerationConfig(3, 3, 8, 4, "float32")
    h.alignment.perplexity = 3.0
    return study


@WITHOUT_OFFICIAL_ROUGE
def test_items_add_up_to_the_runners_figures(tiny):
    measure_stage(tiny, "measure/base")
    scores = Run("base", 0, Path(tiny.work_dir)).scores
    document, tasks = read_json(scores / "measures.json"), read_json(scores / "benchmarks" / "results.json")["tasks"]
    found = document["measures"]
    for name, (task, metric) in FIGURES.items():
        expected = tasks[task]["metrics"][metric]
        ours = value(found[name]["kind"], np.asarray(found[name]["items"]))
        assert ours == pytest.approx(expected, abs=1e-6) if expected is not None else np.isnan(ours), name
    # The paper's tables are found by these names.
    assert {tuple(m["published"]) for m in found.values() if m["published"]} == {
        *(("BELEBELE", "accuracy", d) for d in ("target", "english")),
        *(("MKQA", "F1", d) for d in ("target", "english")),
        *(("XL-SUM", m, d) for m in ("ROUGE-1", "ROUGE-L") for d in ("target", "english")),
        *(("FLORES", "BLEU", d) for d in ("en-xx", "xx-en")),
    }
    held = {n for n, m in found.items() if m["group"] == "Held-out data"}
    assert held == {
        *(f"loss.questions.{q}-{a}" for q in ("eng", "por") for a in ("eng", "por")),
        "loss.translation.eng-por", "loss.translation.por-eng", "alignment.precision_at_1", "alignment.margin",
        *(f"off_target.answers.{c}" for c in ("eng", "por")),
        *(f"{m}.{d}" for m in ("off_target.translations", "bleu", "chrf") for d in ("eng-por", "por-eng")),
    }  # fmt: skip
    assert len(document["answers"]["answers.por"]) == 3 and document["answers"]["mkqa.por"][0]["reference"]

    # Everything is stored: the second time nothing is computed, and the figures are the same.
    stored = sorted((p, p.stat().st_mtime_ns) for p in scores.rglob("tasks/*/*.json"))
    measure_stage(tiny, "measure/base")
    assert sorted((p, p.stat().st_mtime_ns) for p in scores.rglob("tasks/*/*.json")) == stored
    assert read_json(scores / "measures.json")["measures"] == found


def test_what_a_scorer_lacks_is_said_before_the_first_stage(study, monkeypatch):
    """Python 3.13 has no wheel of a package that XL-Sum's official ROUGE needs: nothing may be trained before that
    is known."""
    scorer.cache_clear()
    monkeypatch.setitem(sys.modules, "multilingual_rouge.rouge_scorer", None)
    monkeypatch.setattr(Executor, "run", lambda *_: pytest.fail("a stage was begun"))
    study.benchmarks = "configs/study/benchmarks.yaml"
    with pytest.raises(SdrrlError, match=r"pip install 'sdrrl-nemo\[eval\]'"):
        run_stages(study, "study.yaml", [], KINDS)
    assert not Path(study.work_dir).exists()
