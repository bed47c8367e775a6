"""Everything that is measured so far -> the document that the committed JSON and the page are made from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.common.run_facts import identity_of, is_mean_over_subsets
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.study import learning_rates
from sdrrl_nemo.study.aggregate import value
from sdrrl_nemo.study.config import BASE, StudyConfig, training_config
from sdrrl_nemo.study.orderings import MODEL, counts, orderings, published_figure
from sdrrl_nemo.study.plan import MEASURES, Markers, Run, data_dir, metrics, models, runs, tracked
from sdrrl_nemo.study.table import Scores, table

FORMAT = "sdrrl-study/1"


def collect(config: StudyConfig) -> dict[str, Any] | None:
    """The document, from the runs that are measured; None when no trained model is measured yet."""
    markers = Markers(config.work_dir)
    everything = runs(config)
    measured = [r for r in everything if markers.path(f"measure/{r.name}").is_file()]
    if not any(r.method != BASE for r in measured):
        return None
    done = _finished_stages(markers)
    found = {r.name: read_json(r.scores / MEASURES) for r in measured}
    scores = [Scores(r.method, r.number, found[r.name]["measures"]) for r in measured]
    languages = (config.source_language, config.target_language)
    made = table(scores, config.reference, languages, config.seed, config.statistics.resamples, config.statistics.level)
    rows = [*made["measures"], *made["averages"]]
    pairs = orderings(rows, config.methods, config.method(config.reference), config.target_language)
    return {
        "format": FORMAT,
        "title": config.title,
        "languages": {side: {"code": c, "name": language(c).name}
                      for side, c in zip(("source", "target"), languages, strict=True)},
        "base_model": config.base_model,
        "reference": config.reference,
        "methods": [_method(config, m.name) for m in config.methods],
        "learning_rates": _learning_rates(config, markers),
        "runs": [_run(config, r, markers) for r in everything if r.method != BASE],
        "missing": [r.name for r in everything if r not in measured],
        "measures": made["measures"],
        "averages": made["averages"],
        "published": {"model": MODEL, "figures": _published(rows, config)},
        "orderings": {"rows": pairs, "counts": counts(pairs)},
        "statistics": {**dataclasses.asdict(config.statistics), "tests": made["tests"]},
        "curves": _curves(config, everything),
        "tracking": _tracking(config, markers, found),
        "maps": {r.method: p["tsne"] for r in measured if (p := found[r.name].get("pictures"))},
        "answers": _answers(found, measured, config),
        "skipped": next(iter(found.values()))["skipped"],
        "engines": _engines(config),
        "training": dataclasses.asdict(training_config(config, [])),
        "configuration": dataclasses.asdict(config),
        "seconds": _seconds(done),
        "made": _made(done, everything),
        "provenance": provenance(),
    }  # fmt: skip


def _finished_stages(markers: Markers) -> dict[str, list[dict[str, Any]]]:
    """Markers of the finished stages, by kind."""
    folders = sorted(p for p in markers.root.iterdir() if p.is_dir())
    return {folder.name: [read_json(p) for p in sorted(folder.glob("*.json"))] for folder in folders}


def _made(done: dict[str, list[dict[str, Any]]], everything: Sequence[Run]) -> dict[str, Any]:
    """Dates (UTC) of the first and last finished stage and the commits that trained; the provenance is the page's."""
    days = [datetime.fromtimestamp(m["finished"], UTC).date().isoformat() for kind in done.values() for m in kind]
    trained = [r.run_dir / "provenance.json" for r in everything if r.method != BASE]
    commits = sorted({read_json(p)["git_commit"] for p in trained if p.is_file()})
    return {"first": min(days), "last": max(days), "commits": commits}


def _method(config: StudyConfig, name: str) -> dict[str, Any]:
    """What a method is trained on: samples and tokens by subset."""
    method = config.method(name)
    stats_path = data_dir(config, name) / "stats.json"
    stats = read_json(stats_path) if stats_path.is_file() else None
    keys = ("samples", "tokens", "answer_tokens")
    return {
        "name": name,
        "title": method.title,
        "published": method.published,
        "ablation": method.ablation,
        "config": method.data,
        "overrides": method.overrides,
        "subsets": {d: {k: s[k] for k in keys} for d, s in stats["subsets"].items()} if stats else None,
        "packs": stats["packing"]["packs"] if stats else None,
        "loss": stats["loss"] if stats else None,
    }


def _learning_rates(config: StudyConfig, markers: Markers) -> dict[str, Any]:
    """Method -> what was tried and chosen, where the study chooses and all short runs of the method are done."""
    choices = {m.name: learning_rates.choice(config, m.name, markers.root) for m in config.methods}
    return {name: chosen for name, chosen in choices.items() if chosen is not None}


def _run(config: StudyConfig, run: Run, markers: Markers) -> dict[str, Any]:
    """Seed, length, tokens and time of one training run; ``state``: the last stage that is done."""
    rows = metrics(run.run_dir)
    done = [k for k in ("train", "export", "measure") if markers.path(f"{k}/{run.name}").is_file()]
    return {
        "name": run.name,
        "method": run.method,
        "number": run.number,
        "seed": config.training_seed(run.number),
        "state": done[-1] if done else "not trained",
        "steps": len(rows),
        "tokens": sum(r["tokens"] for r in rows),
        "skipped_steps": sum(bool(r["skipped"]) for r in rows),
        "training_seconds": round(sum(r["seconds"] for r in rows), 1),
        "peak_memory_mib": round(max((r["memory_mib"] for r in rows), default=0.0)),
    }


def _curves(config: StudyConfig, everything: Sequence[Run]) -> dict[str, dict[str, list[float | None]]]:
    """Method -> run number -> loss a step, divided by the number of subsets that Eq. 6 adds up: then methods with one
    subset and with six are on one scale. A run with loss.normalise ``mean`` has divided already."""
    out: dict[str, dict[str, list[float | None]]] = {}
    for run in everything:
        rows = metrics(run.run_dir)
        if run.method == BASE or not rows:
            continue
        divided = is_mean_over_subsets(identity_of(run.run_dir))
        subsets = 1 if divided else max(1, sum(k.startswith("loss_") for k in rows[0]))
        values = [None if r["loss"] is None else round(r["loss"] / subsets, 4) for r in rows]
        out.setdefault(run.method, {})[str(run.number)] = values
    return out


def _tracking(config: StudyConfig, markers: Markers, found: dict[str, Any]) -> dict[str, Any]:
    """Off-target rate of held-out answers in the target language over training: method -> [[tokens, rate], ...], from
    the base model (0 tokens) to the end of run 1; steps that are not measured yet are missing."""
    out: dict[str, Any] = {}
    name = f"off_target.answers.{config.target_language}"

    def rate(measures: dict[str, Any]) -> float | None:
        found = value(measures[name]["kind"], measures[name]["items"]) if name in measures else math.nan
        return found if math.isfinite(found) else None  # NaN: every answer was too short to judge

    for model in models(config):
        if not tracked(config, model):
            continue
        line = out.setdefault(model.method, [[0, rate(found[BASE]["measures"])]] if BASE in found else [])
        if markers.path(f"measure/{model.name}").is_file():
            tokens = [r["tokens"] for r in metrics(model.run_dir)]
            line.append([sum(tokens[: model.step]), rate(read_json(model.scores / MEASURES)["measures"])])
    return out


def _published(rows: Sequence[dict[str, Any]], config: StudyConfig) -> dict[str, dict[str, float]]:
    """Measure -> method -> the paper's figure."""
    out: dict[str, dict[str, float]] = {}
    for measure in rows:
        for method in config.methods:
            figure = published_figure(measure, method, config.target_language)
            if figure is not None:
                out.setdefault(measure["id"], {})[method.name] = figure
    return out


def _answers(found: dict[str, Any], measured: Sequence[Run], config: StudyConfig) -> list[dict[str, Any]]:
    """The first answers of the base model and of run 1 of each method, beside each other: appendix D's view."""
    chosen = [r for r in measured if r.number <= 1]
    tasks = found[chosen[0].name]["answers"] if chosen else {}
    out = []
    for task, rows in tasks.items():
        for i, row in enumerate(rows):
            texts = {
                r.method: {k: a[k] for k in ("text", "finished")}
                for r in chosen
                if i < len(found[r.name]["answers"].get(task, [])) and (a := found[r.name]["answers"][task][i])
            }
            out.append({"task": task, "question": row["question"], "reference": row["reference"], "texts": texts})
    return out


def _engines(config: StudyConfig) -> list[dict[str, Any]]:
    """Licences of what the study is made from: benchmarks, base model, and what the reference method's data come
    from (it uses all the engines)."""
    parts: list[dict[str, Any]] = []
    if config.benchmarks:
        parts.append({"role": "benchmarks", "name": config.benchmarks, "licence": config.benchmarks_licence})
    path = data_dir(config, config.reference) / "stats.json"
    if path.is_file():
        stats = read_json(path)
        parts += [*(stats.get("licences") or []), *stats["engines"]]
    return parts


def _seconds(done: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Wall seconds of the finished stages, by kind: how many, and their sum."""
    return {
        kind: {"stages": len(stages), "seconds": round(sum(float(m["seconds"]) for m in stages), 1)}
        for kind, stages in done.items()
    }
