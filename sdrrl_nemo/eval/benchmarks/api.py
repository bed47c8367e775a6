"""What other parts call: ``run_benchmarks`` measures one Hugging Face folder.

    config = load_config(BenchmarkConfig, "configs/eval/benchmarks_por.yaml", overrides)
    result = run_benchmarks("work/runs/x/hf", config, "work/eval/x")
    result["tasks"]["mkqa.por"]["metrics"]["f1"], [i["score"] for i in result["tasks"]["mkqa.por"]["items"]]

Task names and what their items' ``score`` is (all higher = better but off_target):

    belebele.<lang>           1 when the likeliest letter is right        metrics: accuracy
    belebele_letter.<lang>    1 when the generated letter is right        metrics: accuracy, answered
    mkqa.<lang>               token F1, 0..1                              metrics: f1, em
    xlsum.<lang>              ROUGE-L F1, 0..1 (also rouge1)              metrics: rouge1, rougeL
    flores.<from>-<to>        sentence BLEU, 0..100 (smoothed; also comet) metrics: bleu, chrf [, comet]
    off_target.<lang>         1 when the answer is in another language; None when too short   metrics: rate
    alignment.<src>-<tgt>     retrieval hit, 0, 0.5 or 1 (also margin)    metrics: precision_at_1, parallel, margin

``metrics`` of FLORES are corpus figures, not means of the items; items carry ``prediction`` and ``reference``, so that
a bootstrap can score resampled corpora.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdrrl_nemo.eval.benchmarks.config import BenchmarkConfig

FORMAT = "sdrrl-benchmarks/1"


def run_benchmarks(model_folder: str | Path, config: BenchmarkConfig, output_dir: str | Path) -> dict[str, Any]:
    """Measure ``model_folder`` on every benchmark and language of ``config``; writes ``<output_dir>/results.json``.

    Returns ``{"format", "model": {"path", "fingerprint"}, "tasks": {name: {"metrics": {...}, "n": int, "items": [{"id",
    "prediction", "score", ...}], "seconds": float, ...}}, "skipped": {task: reason}, ...}``; tasks in a fixed order.
    A task's model outputs are stored as soon as they are there (TaskStore under ``output_dir``), so the same call goes
    on where a killed one stopped, and several models may share one ``output_dir``'s parent but not ``output_dir``.
    SdrrlError (one sentence) for missing data, a broken model folder or a wrong configuration, before any long step.
    """
    from sdrrl_nemo.eval.benchmarks.runner import measure

    return measure(model_folder, config, output_dir)
