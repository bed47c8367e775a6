"""What is computed with a model's weights, as tasks that are stored one by one and never done twice."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.precision import resolve
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.data.text.templates import translation_question
from sdrrl_nemo.eval.backends.answer_loss import sample_losses
from sdrrl_nemo.eval.backends.last_states import last_states
from sdrrl_nemo.eval.config import EvalConfig
from sdrrl_nemo.eval.encoding import check_lengths, encode_questions, encode_samples
from sdrrl_nemo.eval.generate import greedy_answers
from sdrrl_nemo.eval.model_folder import ModelFolder, load_model
from sdrrl_nemo.eval.readers.held_out_files import HeldOut
from sdrrl_nemo.eval.store import TaskStore, pack_array

Advance = Callable[[float], object]

# Cost of one generated token in forward tokens (measured on a 2-core CPU); only the progress bar's ETA uses it.
GENERATED_TOKEN_COST = 3


@dataclass(frozen=True)
class Task:
    """``compute(model, advance)`` returns a JSON object; ``settings`` hold all that can change it."""

    name: str
    dtype: str
    settings: dict[str, Any]
    work: int
    compute: Callable[[Any, Advance], dict[str, Any]]


@dataclass(frozen=True)
class Sample:
    """Texts of one task: ``keys`` name the held-out rows; ``answers`` are the references."""

    keys: list[str]
    questions: list[str]
    answers: list[str]


def first(rows: Sequence[Any], count: int) -> list[Any]:
    """The first ``count`` rows; 0 means all."""
    return list(rows[:count] if count else rows)


def question_samples(held_out: HeldOut, config: EvalConfig, count: int) -> dict[tuple[str, str], Sample]:
    """(question language, answer language) -> texts, for the four combinations of source and target."""
    src, tgt = config.source_language, config.target_language
    rows = first(held_out.questions, count)
    side = {src: ("question", "answer"), tgt: ("question_target", "answer_target")}
    return {
        (q, a): Sample(
            [r.key for r in rows], [getattr(r, side[q][0]) for r in rows], [getattr(r, side[a][1]) for r in rows]
        )
        for q, a in ((src, src), (tgt, tgt), (src, tgt), (tgt, src))
    }


def pair_samples(held_out: HeldOut, config: EvalConfig, count: int) -> dict[tuple[str, str], Sample]:
    """(from language, to language) -> translation instructions of Table 1, both directions."""
    src, tgt = config.source_language, config.target_language
    rows = first(held_out.pairs, count)
    keys = [r.key for r in rows]
    forward = [translation_question(r.source, src, tgt) for r in rows]
    backward = [translation_question(r.target, tgt, src) for r in rows]
    return {
        (src, tgt): Sample(keys, forward, [r.target for r in rows]),
        (tgt, src): Sample(keys, backward, [r.source for r in rows]),
    }


def plan(folder: ModelFolder, held_out: HeldOut, config: EvalConfig, device: torch.device) -> list[Task]:
    """All tasks of one model, fp32 ones first, so that the weights are converted once."""
    tasks: list[Task] = []
    for (q, a), sample in question_samples(held_out, config, config.loss.questions).items():
        tasks.append(_loss_task(f"loss.questions.{q}-{a}", folder, sample, config, device))
    for (s, t), sample in pair_samples(held_out, config, config.loss.pairs).items():
        tasks.append(_loss_task(f"loss.translation.{s}-{t}", folder, sample, config, device))
    questions = question_samples(held_out, config, config.alignment.questions)
    for code in (config.source_language, config.target_language):
        tasks.append(_hidden_task(f"states.{code}", folder, questions[code, code], config, device))
    questions = question_samples(held_out, config, config.generation.questions)
    for code in (config.target_language, config.source_language):
        tasks.append(_generation_task(f"answers.{code}", folder, questions[code, code], config, device))
    for (s, t), sample in pair_samples(held_out, config, config.generation.pairs).items():
        tasks.append(_generation_task(f"translations.{s}-{t}", folder, sample, config, device))
    return tasks


def _common(sample: Sample, device: torch.device, dtype: str) -> dict[str, Any]:
    return {
        "texts": content_key(sample.keys, sample.questions, sample.answers),
        "device": device.type,
        "dtype": dtype,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _loss_task(name: str, folder: ModelFolder, sample: Sample, config: EvalConfig, device: torch.device) -> Task:
    rows = encode_samples(folder.tokenizer, sample.questions, sample.answers)

    def compute(model: Any, advance: Advance) -> dict[str, Any]:
        check_lengths([len(r.tokens) for r in rows], getattr(model.config, "max_position_embeddings", None), name)
        losses = sample_losses(model, rows, config.loss.batch_tokens, advance)
        return {
            "keys": sample.keys,
            "mean": [x.mean for x in losses],
            "answer_tokens": [x.answer_tokens for x in losses],
        }

    work = sum(len(r.tokens) for r in rows)
    return Task(name, "float32", _common(sample, device, "float32"), work, compute)


def _hidden_task(name: str, folder: ModelFolder, sample: Sample, config: EvalConfig, device: torch.device) -> Task:
    prompts = encode_questions(folder.tokenizer, sample.questions)

    def compute(model: Any, advance: Advance) -> dict[str, Any]:
        check_lengths([len(p) for p in prompts], getattr(model.config, "max_position_embeddings", None), name)
        return {
            "keys": sample.keys,
            "states": pack_array(last_states(model, prompts, config.loss.batch_tokens, advance)),
        }

    work = sum(len(p) for p in prompts)
    return Task(name, "float32", _common(sample, device, "float32"), work, compute)


def _generation_task(name: str, folder: ModelFolder, sample: Sample, config: EvalConfig, device: torch.device) -> Task:
    g = config.generation
    dtype = resolve(g.dtype, "bfloat16", "float32")
    prompts = encode_questions(folder.tokenizer, sample.questions)
    cost = sum(len(p) for p in prompts) / len(prompts) + GENERATED_TOKEN_COST * g.max_new_tokens

    def compute(model: Any, advance: Advance) -> dict[str, Any]:
        limit = getattr(model.config, "max_position_embeddings", None)
        check_lengths([len(p) + g.max_new_tokens for p in prompts], limit, name)
        answers = greedy_answers(
            model, folder.tokenizer, prompts, g.max_new_tokens, g.batch_size, lambda n: advance(n * cost)
        )
        return {"keys": sample.keys, "answers": [dataclasses.asdict(a) for a in answers]}

    settings = {**_common(sample, device, dtype), "max_new_tokens": g.max_new_tokens, "batch_size": g.batch_size}
    return Task(name, dtype, settings, round(cost * len(prompts)), compute)


def run_tasks(
    folder: ModelFolder, tasks: Sequence[Task], store: TaskStore, device: torch.device
) -> dict[str, dict[str, Any]]:
    """Task name -> result. Stored results are read; the model is loaded only when one is missing."""
    results: dict[str, dict[str, Any]] = {}
    missing: list[Task] = []
    for task in tasks:
        stored = store.load(task.name, task.settings)
        if stored is None:
            missing.append(task)
        else:
            results[task.name] = stored
    print(f"{folder.role}: {folder.path}: {len(tasks)} tasks, {len(results)} already done", flush=True)
    if missing:
        _compute(folder, missing, store, device, results)
    return {t.name: results[t.name] for t in tasks}  # the order must not tell what was stored


def _compute(
    folder: ModelFolder, missing: Sequence[Task], store: TaskStore, device: torch.device, results: dict[str, Any]
) -> None:
    """Load the model, do each task, store its result at once."""
    model: Any = load_model(folder, device)
    dtype = "float32"
    with progress(None, folder.role, total=sum(t.work for t in missing), unit="tok", unit_scale=True) as bar:
        for task in missing:
            bar.set_postfix_str(task.name)
            if task.dtype != dtype:  # weights go down in precision once, never up again
                model, dtype = model.to(getattr(torch, task.dtype)), task.dtype
            started = time.perf_counter()
            result = task.compute(model, bar.update)
            result["seconds"] = round(time.perf_counter() - started, 2)
            store.save(task.name, task.settings, result)
            results[task.name] = result
