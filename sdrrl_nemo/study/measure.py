"""All measures of one model, item by item: held-out data of the study, and the benchmarks.

Writes ``scores/<run>/measures.json``: every figure of every task (sdrrl_nemo/eval/task.py) with ``group``, ``keys`` [n]
that name the items, the same for every model, and ``items`` [n, k], the numbers of each item for the figure's ``kind``
(sdrrl_nemo/study/aggregate.py), so that the comparison needs no model any more. Model outputs are stored task by task:
a stopped measurement continues.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics import CHRF

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.eval.compare import Rate
from sdrrl_nemo.eval.config import BenchmarkConfig, EvalConfig
from sdrrl_nemo.eval.evaluation import measure_model
from sdrrl_nemo.eval.scorers import bleu
from sdrrl_nemo.eval.task import Figure
from sdrrl_nemo.study.aggregate import statistics
from sdrrl_nemo.study.config import BASE, StudyConfig, benchmark_config, held_out_config
from sdrrl_nemo.study.plan import MEASURES, Run, data_dir, models

HELD_OUT, BENCHMARK = "Held-out data", "Benchmarks"
TRACKED = ("held_out_answers",)
"""What a model on the way is asked: off-target rates of answers, nothing else."""


def measure_stage(config: StudyConfig, stage: str) -> None:
    """Measure the run that the stage ``measure/<run>`` names; SdrrlError for another name."""
    known = {f"measure/{run.name}": run for run in models(config)}
    if stage not in known:
        raise SdrrlError(f"--stage: '{stage}' is no measurement of this study; one is {next(iter(known))}")
    run = known[stage]
    model = config.base_model if run.method == BASE else str(run.export)
    measure(config, run, model)


def measure(config: StudyConfig, run: Run, model: str) -> None:
    """Write ``measures.json`` of one model."""
    started = time.perf_counter()
    source, target, on_the_way = config.source_language, config.target_language, run.step is not None
    evaluation = held_out_config(config, model, data_dir(config, config.reference), run.scores)
    converted = str(run.scores / "converted")  # as large as the model, and of no use once it is measured
    _own_cache(evaluation, converted)
    held = measure_model(model, evaluation, run.scores, "trained", TRACKED if on_the_way else ())
    tasks: dict[str, Any] = held["tasks"]
    found = _measures(tasks, HELD_OUT)
    generated = [name for name in tasks if name.startswith(("answers.", "translations."))]
    answers = {} if on_the_way else _answers(tasks, generated, config.samples)
    skipped: dict[str, str] = {}
    benchmarks = benchmark_config(config)
    if benchmarks is not None and not on_the_way:
        _own_cache(benchmarks, converted)
        results = measure_model(model, benchmarks, run.scores / "benchmarks")
        skipped = results["skipped"]
        found |= _measures(results["tasks"], BENCHMARK)
        shown = [f"{name}.{target}" for name in ("mkqa", "xlsum", "off_target")]
        answers |= _answers(results["tasks"], shown, config.samples)
    write_json(
        run.scores / MEASURES,
        {
            "run": run.name,
            "model": held["model"],
            "measures": found,
            "answers": answers,
            "skipped": skipped,
            "pictures": {} if on_the_way or run.number > 1 else {"tsne": _map(tasks[f"alignment.{source}-{target}"])},
            "seconds": round(time.perf_counter() - started, 1),
        },
    )
    shutil.rmtree(converted, ignore_errors=True)


def _own_cache(config: EvalConfig | BenchmarkConfig, folder: str) -> None:
    """Let a model that is converted for the evaluation lie in ``folder``, where no cache is named."""
    if config.backend.name == "ctranslate2":
        config.backend.options.setdefault("cache", folder)


def _measures(tasks: dict[str, Any], group: str) -> dict[str, Any]:
    """Every figure of every task with its items' numbers, in the tasks' order."""
    return {
        figure["id"]: {
            **{k: figure[k] for k in ("id", "title", "language", "unit", "better", "kind", "published")},
            "group": group,
            "keys": [str(x["id"]) for x in task["items"]],
            "items": _numbers(Figure(**figure), task["items"]),
        }
        for task in tasks.values()
        for figure in task["figures"]
    }


def _numbers(figure: Figure, items: Sequence[dict[str, Any]]) -> list[list[float]]:
    """What each item brings to a figure; an item without score (too short to judge) has no weight."""
    if figure.kind == "mean":
        rate = Rate.of_items(items, figure.per_item, figure.scale)
        return [[value, weight] for value, weight in zip(rate.value, rate.weight, strict=True)]
    metric = (bleu.metric if figure.kind == "bleu" else CHRF)(**figure.options)
    return statistics(metric, [x["prediction"] for x in items], [x["reference"] for x in items])


def _map(task: dict[str, Any]) -> dict[str, Any]:
    """t-SNE of parallel held-out questions (the paper's Fig. 2), and the questions, by side."""
    return {side: {"points": task["tsne"][side], "texts": task["texts"][side]} for side in ("source", "target")}


def _answers(tasks: dict[str, Any], names: Sequence[str], count: int) -> dict[str, list[dict[str, Any]]]:
    """The first answers of each task, nobody chose them: task -> {"question", "reference", "text", "finished"}."""
    return {
        name: [
            {
                "question": str(x.get("prompt", x["id"])),
                "reference": _reference(x.get("reference")),
                "text": str(x["prediction"]),
                "finished": bool(x.get("finished", True)),
            }
            for x in tasks[name]["items"][:count]
        ]
        for name in names
        if name in tasks
    }


def _reference(value: Any) -> str:
    if isinstance(value, list):
        return " / ".join(map(str, value))
    return "" if value is None else str(value)
