"""One benchmark in one language: what the model is asked, how its answers become scores, and which figures follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.registry import Registry


@dataclass(frozen=True)
class Generate:
    """Greedy answer to ``prompt``; with ``chat`` it is the user's turn of the chat template.

    ``text``: the part of ``prompt`` that loses its end when the model has too few positions for all of it; empty: an
    error.
    """

    prompt: str
    max_new_tokens: int
    chat: bool
    text: str = ""


@dataclass(frozen=True)
class Choose:
    """Log-likelihood of each of ``choices`` as the continuation of ``context``."""

    context: str
    choices: tuple[str, ...]
    chat: bool


@dataclass(frozen=True)
class State:
    """Last layer's hidden state of the last token of ``prompt`` in the chat template.

    ``group``: neighbours of one group are computed together, which changes rounding only.
    """

    prompt: str
    group: str = ""


@dataclass(frozen=True)
class Loss:
    """Mean cross-entropy of ``answer`` and the end token after ``prompt`` in the chat template, as in training."""

    prompt: str
    answer: str


Request = Generate | Choose | State | Loss


@dataclass(frozen=True)
class Figure:
    """A measure that follows from a task's items, in the words of tables and pages.

    ``metric`` names it among the task's metrics. Kind ``mean``: ``scale`` times the mean of the items' ``per_item``,
    where items without a value weigh nothing. Kinds ``bleu`` and ``chrf``: sacreBLEU's corpus score of the items'
    predictions and references with ``options``; a paired interval resamples ``per_item`` in its place, if it names one.
    ``better``: ``higher`` or ``lower``. ``published``: (benchmark, metric, direction) in the paper's tables.
    """

    id: str
    title: str
    language: str
    unit: str
    better: str
    metric: str
    kind: str = "mean"
    per_item: str = "score"
    scale: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    published: tuple[str, str, str] | None = None


@dataclass(frozen=True)
class Scored:
    """``metrics``: name -> value; ``items``: one per item with at least ``id``, ``prediction`` and ``score``;
    ``extra``: whatever else belongs into the task's result (signatures, pictures)."""

    metrics: dict[str, float | None]
    items: list[dict[str, Any]]
    figures: Sequence[Figure]
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """``requests``: all of one kind. ``score`` gets their outputs in order: Generate -> {"text", "tokens", "finished"},
    Choose -> list of log-likelihoods (nats), State -> float32 array [H], Loss -> {"mean", "answer_tokens"}.

    ``translation``: the items' prompt, prediction and reference are source, translation and reference, which COMET can
    judge. ``dtype``: the model's number format where it is not the configuration's. ``batch_size``: prompts decoded
    together; 0 takes as many as fit and decodes close calls alone, so that the batch changes no answer.
    """

    name: str
    requests: Sequence[Request]
    score: Callable[[list[Any]], Scored]
    translation: bool = False
    dtype: str = ""
    batch_size: int = 0

    @property
    def kind(self) -> str:
        """``Generate``, ``Choose``, ``State`` or ``Loss``."""
        return type(self.requests[0]).__name__

    def content(self) -> str:
        """Fingerprint of everything the model is asked."""
        asked = [sorted((k, v) for k, v in vars(r).items() if k != "group") for r in self.requests]
        return content_key(self.kind, asked)


Entry = Task | tuple[str, str]
"""A task, or (its name, reason) where the data set does not serve a language."""
SUITES: Registry[list[Entry]] = Registry("benchmark")
"""name -> planner: BenchmarkConfig -> entries; filled by importing sdrrl_nemo.eval.suites."""
HELD_OUT: Registry[list[Entry]] = Registry("held-out task")
"""The same for EvalConfig."""
