"""What other parts call: ``run_benchmarks`` measures one Hugging Face folder.

    config = load_config(BenchmarkConfig, "configs/eval/benchmarks_por.yaml", overrides)
    result = run_benchmarks("work/runs/x/hf", config, "work/eval/x")
    result["tasks"]["mkqa.por"]["metrics"]["f1"], [i["score"] for i in result["tasks"]["mkqa.por"]["items"]]

Task names, their ``metrics`` (percent, as the paper prints them; alignment's cosines excepted) and what their items'
``score`` is (higher = better but for off_target):

    belebele.<lang>         accuracy                          1 when the likeliest letter is right
    belebele_letter.<lang>  accuracy, answered                1 when the generated letter is right
    mkqa.<lang>             f1, em                            token F1, 0..1 (also exact_match)
    xlsum.<lang>            rouge1, rougeL                    ROUGE-L F1, 0..1 (also rouge1, rouge2)
    flores.<from>-<to>      bleu, chrf [, comet]              sentence BLEU, 0..100 [also comet, about 0..1]
    off_target.<lang>       rate                              1: in another language; None: too short to judge
    alignment.<src>-<tgt>   precision_at_1, parallel,         retrieval hit: 0, 0.5 or 1 (also margin)
                            non_parallel, margin

``metrics`` of FLORES are corpus figures, not means of the items; items carry ``prediction`` and ``reference``, so that
a bootstrap can score resampled corpora. All other metrics of percent are 100 times the mean of the items' figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdrrl_nemo.eval.benchmark_config import BenchmarkConfig

FORMAT = "sdrrl-benchmarks/1"


def run_benchmarks(model_folder: str | Path, config: BenchmarkConfig, output_dir: str | Path) -> dict[str, Any]:
    """Measure ``model_folder`` on every benchmark and language of ``config``; writes ``<output_dir>/results.json``.

    Returns ``{"format", "model": {"path", "fingerprint"}, "tasks": {name: {"metrics": {...}, "n": int, "items": [{"id",
    "prediction", "score", ...}], "seconds": float, ...}}, "skipped": {task: reason}, ...}``; tasks in a fixed order.
    A task's model outputs are stored as soon as they are there (TaskStore under ``output_dir``), so the same call goes
    on where a killed one stopped, and several models may share one ``output_dir``'s parent but not ``output_dir``.
    SdrrlError (one sentence) for missing data, a broken model folder or a wrong configuration, before any long step.
    """
    from sdrrl_nemo.eval.evaluation import measure

    return measure(model_folder, config, output_dir)
