"""All benchmarks of one model, top down: read the data, ask what is missing, score, write results.json."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sdrrl_nemo.data.engines
import sdrrl_nemo.eval.backends
import sdrrl_nemo.eval.suites  # noqa: F401  registers the benchmarks
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key, sha256_file, write_json
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.data.engines.quality.comet import CometScorer
from sdrrl_nemo.data.validation import import_plugins
from sdrrl_nemo.eval.backends.interface import BACKENDS, Backend
from sdrrl_nemo.eval.benchmark_config import BenchmarkConfig, check
from sdrrl_nemo.eval.model_folder import open_model_folder
from sdrrl_nemo.eval.run_benchmarks import FORMAT
from sdrrl_nemo.eval.scorers import comet
from sdrrl_nemo.eval.store import TaskStore, pack_array, unpack_array
from sdrrl_nemo.eval.task import BENCHMARKS, BenchmarkTask, Scored, State


def plan(config: BenchmarkConfig) -> tuple[list[BenchmarkTask], dict[str, str]]:
    """Tasks in the order of ``names`` and languages, and the skipped ones with their reason; reads all data."""
    tasks: list[BenchmarkTask] = []
    skipped: dict[str, str] = {}
    for name in config.names:
        for entry in BENCHMARKS.factory(name)(config):
            if isinstance(entry, BenchmarkTask):
                tasks.append(entry)
            else:
                skipped[entry[0]] = entry[1]
    return tasks, skipped


def measure(model_folder: str | Path, config: BenchmarkConfig, output_dir: str | Path) -> dict[str, Any]:
    """See api.run_benchmarks."""
    check(config)
    import_plugins(config.plugins)
    tasks, skipped = plan(config)
    if config.comet.enabled:
        open_comet(config)  # says at once what it lacks
    folder = open_model_folder("model", model_folder)
    backend = BACKENDS.create(config.backend.name, folder=folder, config=config, **config.backend.options)
    store = TaskStore(output_dir, folder.fingerprint)
    outputs = ask(tasks, backend, store)
    results = {}
    for task in tasks:
        stored = outputs[task.name]
        started = time.perf_counter()
        scored = task.score(stored["outputs"])
        if task.translation and config.comet.enabled:
            scored = with_comet(scored, task.name, config, store)
        results[task.name] = {
            "metrics": scored.metrics,
            "n": len(scored.items),
            "items": scored.items,
            **scored.extra,
            "seconds": stored["seconds"],
            "scoring_seconds": round(time.perf_counter() - started, 2),
        }
    document = {
        "format": FORMAT,
        "model": {"path": str(folder.path), "fingerprint": folder.fingerprint},
        "backend": backend.identity(),
        "tasks": results,
        "skipped": skipped,
        "configuration": dataclasses.asdict(config),
        "provenance": provenance(),
    }
    write_json(Path(output_dir) / "results.json", document)
    return document


def ask(tasks: Sequence[BenchmarkTask], backend: Backend, store: TaskStore) -> dict[str, dict[str, Any]]:
    """Task name -> {"outputs", "seconds"}; stored ones are read, each missing one is stored as soon as it is done."""
    found: dict[str, dict[str, Any]] = {}
    missing: list[tuple[BenchmarkTask, dict[str, Any]]] = []
    for task in tasks:
        settings = {"requests": task.content(), "backend": backend.identity()}
        stored = store.load(task.name, settings)
        if stored is None:
            missing.append((task, settings))
        else:
            found[task.name] = stored
    print(f"{backend.folder.path}: {len(tasks)} tasks, {len(found)} already done", flush=True)
    if missing:
        backend.prepare()
        total = sum(backend.work(task.requests) for task, _ in missing)
        with progress(None, backend.folder.path.name, total=total, unit="tok", unit_scale=True) as bar:
            for task, settings in missing:
                bar.set_postfix_str(task.name)
                started = time.perf_counter()
                outputs = backend.run(task.requests, bar.update)
                if isinstance(task.requests[0], State):
                    outputs = [pack_array(x) for x in outputs]
                result = {"outputs": outputs, "seconds": round(time.perf_counter() - started, 2)}
                store.save(task.name, settings, result)
                found[task.name] = result
    for task in tasks:
        if isinstance(task.requests[0], State):
            found[task.name] = {**found[task.name], "outputs": [unpack_array(x) for x in found[task.name]["outputs"]]}
    return found


def open_comet(config: BenchmarkConfig) -> CometScorer:
    """The scorer, not started yet; SdrrlError when its model or its environment is not there."""
    c = config.comet
    scorer = comet.open_scorer(c.model, c.encoder, c.python, c.device, c.precision, c.batch_size)
    if not scorer.checkpoint.is_file():
        raise SdrrlError(f"comet.model: no COMET model at {scorer.checkpoint}; docs/evaluation.md says how to get it")
    if not Path(c.python).exists():
        raise SdrrlError(f"comet.python: {c.python} is not there; make COMET's environment: make comet-env")
    return scorer


def with_comet(scored: Scored, name: str, config: BenchmarkConfig, store: TaskStore) -> Scored:
    """``comet`` in metrics (times 100, as the paper prints it) and items (about 0 to 1); stored part by part."""
    c, scorer = config.comet, open_comet(config)
    segments = comet.make_segments(*([str(i[k]) for i in scored.items] for k in ("prompt", "prediction", "reference")))
    settings = {
        "segments": content_key(segments),
        "checkpoint": sha256_file(scorer.checkpoint),
        "encoder": c.encoder,
        "precision": c.precision,
    }
    scores: list[float] = (store.load(f"comet.{name}", settings) or {"scores": []})["scores"]
    try:
        for part in comet.score_batches(scorer, segments, done=len(scores)):
            scores = [*scores, *part]
            store.save(f"comet.{name}", settings, {"scores": scores})
    finally:
        scorer.close()
    items = [{**i, "comet": s} for i, s in zip(scored.items, scores, strict=True)]
    return Scored({**scored.metrics, "comet": comet.corpus_score(scores)}, items, scored.extra)
