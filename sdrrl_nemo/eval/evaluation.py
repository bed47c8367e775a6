"""The evaluation, top down: read the data, ask a model what is missing, score, write results.json.

    config = load_config(BenchmarkConfig, "configs/eval/benchmarks_por.yaml", overrides)
    result = measure_model("work/runs/x/hf", config, "work/eval/x")
    result["tasks"]["mkqa.por"]["metrics"]["f1"], [i["score"] for i in result["tasks"]["mkqa.por"]["items"]]

base_and_trained.py and several_models.py compare the results of more than one model. Task names, their ``metrics``
(percent, as the paper prints them; losses and cosines excepted) and what their items' ``score`` is (higher = better but
for losses and off-target answers):

    belebele.<lang>         accuracy                          1 when the likeliest letter is right
    belebele_letter.<lang>  accuracy, answered                1 when the generated letter is right
    mkqa.<lang>             f1, em                            token F1, 0..1 (also exact_match)
    xlsum.<lang>            rouge1, rougeL                    ROUGE-L F1, 0..1 (also rouge1, rouge2)
    flores.<from>-<to>      bleu, chrf [, comet]              sentence BLEU, 0..100 [also comet, about 0..1]
    flores_plus.<from>-<to> as flores
    include.<lang>          accuracy                          1 when the likeliest letter is right
    global_mmlu.<lang>      accuracy, accuracy_cs, _ca        the same; also global_mmlu_lite.<lang>
    multiloko.<lang>        em, f1, chrf                      exact match, 0 or 1 (also f1, chrf)
    mgsm.<lang>             accuracy, answered                1 when the number is right
    m_arenahard.<lang>      win_rate, arena_hard              1 won, 0.5 tie, 0 lost; None: not judged
    language_confusion.<setting>-<source>.<lang>
                            lpr, line_accuracy [, wpr]        1: each line is in the language; None: too short
    off_target.<lang>       rate                              1: in another language; None: too short to judge
    alignment.<src>-<tgt>   precision_at_1, parallel,         retrieval hit: 0, 0.5 or 1 (also margin)
                            non_parallel, margin
    loss.<kind>.<q>-<a>     loss, perplexity                  nats per answer token; kind: questions, translation
    answers.<lang>          rate                              as off_target
    translations.<from>-<to>  rate, bleu, chrf                as off_target

BLEU and chrF are corpus figures, not means of the items; items carry ``prediction`` and ``reference``, so that a
bootstrap can score resampled corpora. ``figures`` of a task say which measures follow from its items (task.Figure).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import sdrrl_nemo.eval.backends
import sdrrl_nemo.eval.suites  # noqa: F401  registers what can be measured
from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import content_key, sha256_file, write_json
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.data.engines.quality.comet import CometScorer
from sdrrl_nemo.data.validation import import_plugins
from sdrrl_nemo.eval.backends.interface import BACKENDS, Backend
from sdrrl_nemo.eval.config import BenchmarkConfig, CometConfig, EvalConfig, check
from sdrrl_nemo.eval.model_folder import ModelFolder, open_model_folder
from sdrrl_nemo.eval.scorers import comet
from sdrrl_nemo.eval.store import TaskStore, pack_array, unpack_array
from sdrrl_nemo.eval.task import HELD_OUT, SUITES, Entry, Generate, Scored, State, Task

FORMAT = "sdrrl-eval/2"
Config = EvalConfig | BenchmarkConfig
Results = dict[str, Any]
"""{"format", "model": {"path", "fingerprint"}, "tasks": {name: {"metrics", "n", "items": [{"id", "prediction",
"score", ...}], "figures", "seconds", ...}}, "skipped": {task: reason}, ...}; tasks in a fixed order."""


def measure_model(
    path: str | Path, config: Config, output_dir: str | Path, role: str = "model", names: Sequence[str] = ()
) -> Results:
    """Measure one Hugging Face folder on everything that ``config`` (or ``names``) asks for.

    A task's model outputs are stored as soon as they are there (TaskStore under ``output_dir``), so the same call goes
    on where a killed one stopped, and several models may share one ``output_dir``'s parent but not ``output_dir``.
    SdrrlError (one sentence) for missing data, a broken model folder or a wrong configuration, before any long step.
    """
    tasks, skipped = plan(config, names)
    return measure(open_model_folder(role, path, config.templates), config, tasks, skipped, output_dir)


def plan(config: Config, names: Sequence[str] = ()) -> tuple[list[Task], dict[str, str]]:
    """Tasks in the order of ``names`` and languages, and the skipped ones with their reason.

    Reads all data and checks what only the last steps need; one plan serves any number of models.
    """
    check(config)
    import_plugins(config.plugins)
    tasks: list[Task] = []
    skipped: dict[str, str] = {}
    for planner in _planners(config, names or config.names):
        for entry in planner(config):
            if isinstance(entry, Task):
                tasks.append(entry)
            else:
                skipped[entry[0]] = entry[1]
    if config.comet.enabled:
        open_comet(config.comet)  # says at once what it lacks
    return tasks, skipped


def _planners(config: Config, names: Sequence[str]) -> list[Callable[..., list[Entry]]]:
    """The suites of ``names``; SdrrlError for a name that none has, before any data is read."""
    if isinstance(config, EvalConfig):
        return [HELD_OUT.factory(name) for name in names]
    for key, chosen in (("names", names), ("limits", config.limits), ("max_new_tokens", config.max_new_tokens)):
        for name in chosen:
            if name not in SUITES:
                raise SdrrlError(f"{key}: unknown benchmark '{name}'{suggest(name, SUITES)}")
    return [SUITES.factory(name) for name in names]


def measure(
    folder: ModelFolder, config: Config, tasks: Sequence[Task], skipped: dict[str, str], output_dir: str | Path
) -> Results:
    """Ask the model, score its answers, write ``<output_dir>/results.json``."""
    backend = BACKENDS.create(config.backend.name, folder=folder, config=config, **config.backend.options)
    store = TaskStore(output_dir, folder.fingerprint)
    outputs = ask(tasks, backend, store)
    results = {}
    for task in tasks:
        started = time.perf_counter()
        scored = task.score(outputs[task.name]["outputs"])
        if task.translation and config.comet.enabled:
            scored = with_comet(scored, task.name, config.comet, store)
        results[task.name] = {
            "metrics": scored.metrics,
            "n": len(scored.items),
            "items": scored.items,
            "figures": [dataclasses.asdict(f) for f in scored.figures],
            **scored.extra,
            "seconds": outputs[task.name]["seconds"],
            "scoring_seconds": round(time.perf_counter() - started, 2),
        }
    backend.adopt()
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


def ask(tasks: Sequence[Task], backend: Backend, store: TaskStore) -> dict[str, dict[str, Any]]:
    """Task name -> {"outputs", "seconds"}; stored ones are read, each missing one is stored as soon as it is done.

    Tasks in fp32 go first, because the backend lowers the precision of the weights once and cannot raise it again.
    """
    found: dict[str, dict[str, Any]] = {}
    missing: list[Missing] = []
    for task in tasks:
        backend.adopt(task.dtype, task.batch_size)
        settings = {"requests": task.content(), "backend": backend.identity()}
        stored = store.load(task.name, settings)
        if stored is None:
            missing.append((task, settings))
        else:
            found[task.name] = stored
    missing.sort(key=lambda entry: (entry[0].dtype or backend.config.dtype) != "float32")
    role = "" if backend.folder.role == "model" else f"{backend.folder.role}: "
    print(f"{role}{backend.folder.path}: {len(tasks)} tasks, {len(found)} already done", flush=True)
    groups = _asked_together(missing, backend)
    asked = [[r for task, _ in group for r in task.requests] for group in groups]
    total = sum(backend.work(requests) for requests in asked)
    with progress(None, backend.folder.path.name, total=total, unit="tok", unit_scale=True, disable=not missing) as bar:
        for group, requests in zip(groups, asked, strict=True):
            bar.set_postfix_str(", ".join(task.name for task, _ in group))
            backend.adopt(group[0][0].dtype, group[0][0].batch_size)
            backend.prepare()
            started = time.perf_counter()
            outputs = iter(backend.run(requests, bar.update))
            seconds = (time.perf_counter() - started) / len(requests)
            for task, settings in group:
                own = list(islice(outputs, len(task.requests)))
                if isinstance(task.requests[0], State):
                    own = [pack_array(x) for x in own]
                found[task.name] = {"outputs": own, "seconds": round(seconds * len(own), 2)}
                store.save(task.name, settings, found[task.name])
    for task in tasks:
        if isinstance(task.requests[0], State):
            found[task.name] = {**found[task.name], "outputs": [unpack_array(x) for x in found[task.name]["outputs"]]}
    return found


Missing = tuple[Task, dict[str, Any]]
"""A task that is not stored, and the settings that its result will be stored under."""


def _asked_together(missing: Sequence[Missing], backend: Backend) -> list[list[Missing]]:
    """Tasks in the order in which they are asked, those together whose answers are decoded in one batch: a step of
    decoding reads all weights, for one row as for many."""
    out: dict[tuple[Any, ...], list[Missing]] = {}
    for number, entry in enumerate(missing):
        task = entry[0]
        alone = not (isinstance(task.requests[0], Generate) and backend.together(task.batch_size))
        out.setdefault((number,) if alone else (task.dtype, task.batch_size), []).append(entry)
    return list(out.values())


def open_comet(config: CometConfig) -> CometScorer:
    """The scorer, not started yet; SdrrlError when its model or its environment is not there."""
    c = config
    scorer = comet.open_scorer(c.model, c.encoder, c.python, c.device, c.precision, c.batch_size)
    if not scorer.checkpoint.is_file():
        raise SdrrlError(f"comet.model: no COMET model at {scorer.checkpoint}; docs/evaluation.md says how to get it")
    if not Path(c.python).exists():
        raise SdrrlError(f"comet.python: {c.python} is not there; make COMET's environment: make comet-env")
    return scorer


def with_comet(scored: Scored, name: str, config: CometConfig, store: TaskStore) -> Scored:
    """``comet`` in metrics (times 100, as the paper prints it) and items (about 0 to 1); stored part by part."""
    scorer = open_comet(config)
    segments = comet.make_segments(*([str(i[k]) for i in scored.items] for k in ("prompt", "prediction", "reference")))
    settings = {
        "segments": content_key(segments),
        "checkpoint": sha256_file(scorer.checkpoint),
        "encoder": config.encoder,
        "precision": config.precision,
    }
    scores: list[float] = (store.load(f"comet.{name}", settings) or {"scores": []})["scores"]
    try:
        for part in comet.score_batches(scorer, segments, done=len(scores)):
            scores = [*scores, *part]
            store.save(f"comet.{name}", settings, {"scores": scores})
    finally:
        scorer.close()
    items = [{**i, "comet": s} for i, s in zip(scored.items, scores, strict=True)]
    return dataclasses.replace(scored, metrics={**scored.metrics, "comet": comet.corpus_score(scores)}, items=items)
