"""All measures of one model, item by item: held-out data of the study, and the benchmarks.

Writes ``scores/<run>/measures.json``: measure -> kind (sdrrl_nemo/study/aggregate.py), items' keys and numbers, so that
the comparison needs no model any more. Model outputs are stored task by task: a stopped measurement continues.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import transformers
from sacrebleu.metrics import BLEU, CHRF

import sdrrl_nemo.data.engines  # noqa: F401  registers the language identifiers
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.config import EvalConfig
from sdrrl_nemo.eval.config import check as check_evaluation
from sdrrl_nemo.eval.model_folder import ModelFolder, choose_device, open_model_folder
from sdrrl_nemo.eval.readers.held_out_files import HeldOut, read_held_out
from sdrrl_nemo.eval.run_benchmarks import run_benchmarks
from sdrrl_nemo.eval.scorers.alignment import alignment, map_points, tsne
from sdrrl_nemo.eval.scorers.off_target import off_target
from sdrrl_nemo.eval.store import TaskStore, unpack_array
from sdrrl_nemo.eval.tasks import pair_samples, plan, question_samples, run_tasks
from sdrrl_nemo.study.aggregate import statistics
from sdrrl_nemo.study.benchmark_measures import from_benchmarks
from sdrrl_nemo.study.config import BASE, StudyConfig, benchmark_config, held_out_config
from sdrrl_nemo.study.measures import FILE, HELD_OUT, Measure
from sdrrl_nemo.study.plan import Run, data_dir, models

HELD_OUT_TOKENIZE = "13a"


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
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(config.threads)
    held = _held_out(config, model, run)
    tasks: dict[str, Any] = {}
    benchmarks = benchmark_config(config)
    found = list(held.measures)
    skipped: dict[str, str] = {}
    if benchmarks is not None and run.step is None:
        results = run_benchmarks(model, benchmarks, run.scores / "benchmarks")
        tasks, skipped = results["tasks"], results["skipped"]
        found += from_benchmarks(tasks, config.source_language, config.target_language, benchmarks.bleu_tokenize)
    write_json(
        run.scores / FILE,
        {
            "run": run.name,
            "model": {"path": model, "fingerprint": held.fingerprint},
            "measures": {m.id: asdict(m) for m in found},
            "answers": {**held.answers, **_benchmark_answers(tasks, config.target_language, config.samples)},
            "skipped": skipped,
            "pictures": held.pictures,
            "seconds": round(time.perf_counter() - started, 1),
        },
    )


@dataclass(frozen=True)
class HeldOutResult:
    """Held-out measures of one model, its first answers, and the t-SNE map of run 1."""

    fingerprint: str
    measures: Sequence[Measure]
    answers: dict[str, Any]
    pictures: dict[str, Any]


def _held_out(config: StudyConfig, model: str, run: Run) -> HeldOutResult:
    data = data_dir(config, config.reference)
    evaluation = held_out_config(config, model, data, run.scores)
    check_evaluation(evaluation)
    rows = read_held_out(data, config.source_language, config.target_language)
    folder: ModelFolder = open_model_folder("trained", model)
    device = choose_device(evaluation.device)
    tasks = plan(folder, rows, evaluation, device)
    store = TaskStore(run.scores, folder.fingerprint)
    if run.step is not None:  # on the way: off-target rates of answers, nothing else
        results = run_tasks(folder, [t for t in tasks if t.name.startswith("answers.")], store, device)
        return HeldOutResult(folder.fingerprint, _generated(results, config, evaluation, rows), {}, {})
    results = run_tasks(folder, tasks, store, device)
    codes = (evaluation.source_language, evaluation.target_language)
    states = [unpack_array(results[f"states.{code}"]["states"]) for code in codes]
    found = [
        *_losses(results),
        *_alignment(states, results[f"states.{codes[0]}"]["keys"], codes[1]),
        *_generated(results, config, evaluation, rows),
    ]
    pictures = {"tsne": _map(states, evaluation, rows)} if run.number <= 1 else {}
    return HeldOutResult(folder.fingerprint, found, _answers(results, config, evaluation, rows), pictures)


def _map(states: Sequence[Any], evaluation: EvalConfig, rows: HeldOut) -> dict[str, Any]:
    """t-SNE of parallel held-out questions (the paper's Fig. 2), and the questions; ``states``: source and target."""
    codes = (evaluation.source_language, evaluation.target_language)
    flat = tsne(states[0], states[1], evaluation.alignment.perplexity, evaluation.seed)
    questions = question_samples(rows, evaluation, evaluation.alignment.questions)
    return {
        side: {"points": map_points(points), "texts": questions[code, code].questions}
        for side, code, points in zip(("source", "target"), codes, flat, strict=True)
    }


def _losses(results: dict[str, Any]) -> list[Measure]:
    out = []
    for name, result in results.items():
        if not name.startswith("loss."):
            continue
        kind, direction = name.split(".")[1:]
        asked, answered = (language(c).name for c in direction.split("-"))
        what = "Loss" if kind == "questions" else "Translation loss"
        out.append(
            Measure(
                id=name,
                group=HELD_OUT,
                title=f"{what}, {asked} → {answered}",
                language=direction.split("-")[1],
                unit="nats/token",
                better="lower",
                kind="mean",
                keys=result["keys"],
                items=[[x, 1.0] for x in result["mean"]],
            )
        )
    return out


def _alignment(states: Sequence[Any], keys: list[str], target: str) -> list[Measure]:
    found = alignment(states[0], states[1])
    common: dict[str, Any] = {"group": HELD_OUT, "language": target, "better": "higher", "kind": "mean", "keys": keys}
    return [
        Measure(
            id="alignment.precision_at_1",
            title="Retrieval of parallel questions (P@1)",
            unit="%",
            items=[[100.0 * x, 1.0] for x in found.hits],
            **common,
        ),
        Measure(
            id="alignment.margin",
            title="Cosine of parallel minus other questions",
            unit="cosine",
            items=[[x, 1.0] for x in found.margins],
            **common,
        ),
    ]


def _generated(results: dict[str, Any], config: StudyConfig, evaluation: EvalConfig, rows: HeldOut) -> list[Measure]:
    """Off-target rates of answers and translations; BLEU and chrF of the translations."""
    identifier = LANGUAGE_IDENTIFIERS.create(
        config.held_out.language_identifier.name, **config.held_out.language_identifier.options
    )
    out = []
    pairs = pair_samples(rows, evaluation, evaluation.generation.pairs)
    for name, result in results.items():
        if not name.startswith(("answers.", "translations.")):
            continue
        kind, direction = name.split(".")
        expected = direction.rsplit("-", maxsplit=1)[-1]
        texts = [a["text"] for a in result["answers"]]
        judged = off_target(identifier, texts, expected, config.held_out.min_letters).languages
        what = "answers in" if kind == "answers" else "translations into"
        common: dict[str, Any] = {"group": HELD_OUT, "language": expected, "keys": result["keys"]}
        out.append(
            Measure(
                id=f"off_target.{name}",
                title=f"Off-target rate, {what} {language(expected).name}",
                unit="%",
                better="lower",
                kind="mean",
                items=[[100.0 * (c is not None and c != expected), float(c is not None)] for c in judged],
                **common,
            )
        )
        if kind == "translations":
            one_code = direction.split("-")[0]
            arrow = f"{language(one_code).name} → {language(expected).name}"
            references = pairs[one_code, expected].answers
            for metric, label in ((BLEU(tokenize=HELD_OUT_TOKENIZE), "BLEU"), (CHRF(), "chrF")):
                out.append(
                    Measure(
                        id=f"{label.lower()}.{direction}",
                        title=f"{label}, {arrow}",
                        unit=label,
                        better="higher",
                        kind=label.lower(),
                        items=statistics(metric, texts, references),
                        **common,
                    )
                )
    return out


def _answers(
    results: dict[str, Any], config: StudyConfig, evaluation: EvalConfig, rows: HeldOut
) -> dict[str, list[dict[str, Any]]]:
    """The first answers of each kind, nobody chose them: task -> {"question", "reference", "text", "finished"}."""
    target, source = config.target_language, config.source_language
    questions = question_samples(rows, evaluation, evaluation.generation.questions)
    samples = {f"answers.{c}": questions[c, c] for c in (target, source)}
    samples |= {f"translations.{s}-{t}": x for (s, t), x in pair_samples(rows, evaluation, 0).items()}
    out = {}
    for name, sample in samples.items():
        first = results[name]["answers"][: config.samples]
        out[name] = [
            {"question": q, "reference": r, "text": a["text"], "finished": a["finished"]}
            for q, r, a in zip(sample.questions, sample.answers, first, strict=False)
        ]
    return out


def _benchmark_answers(tasks: dict[str, Any], target: str, count: int) -> dict[str, list[dict[str, Any]]]:
    """The first answers to benchmark items in the target language."""
    out = {}
    for name in (f"mkqa.{target}", f"xlsum.{target}", f"off_target.{target}"):
        if name in tasks:
            out[name] = [
                {
                    "question": str(x.get("prompt", x["id"])),
                    "reference": _reference(x.get("reference")),
                    "text": str(x["prediction"]),
                    "finished": bool(x.get("finished", True)),
                }
                for x in tasks[name]["items"][:count]
            ]
    return out


def _reference(value: Any) -> str:
    if isinstance(value, list):
        return " / ".join(map(str, value))
    return "" if value is None else str(value)
