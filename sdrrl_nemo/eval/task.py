"""One benchmark in one language: what the model is asked, and how its answers become scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.registry import Registry
from sdrrl_nemo.eval.benchmark_config import BenchmarkConfig


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
    """Last layer's hidden state of the last token of ``prompt`` in the chat template."""

    prompt: str


Request = Generate | Choose | State


@dataclass(frozen=True)
class Scored:
    """``metrics``: name -> figure; ``items``: one per item with at least ``id``, ``prediction`` and ``score``;
    ``extra``: whatever else belongs into the task's result (signatures, pictures)."""

    metrics: dict[str, float | None]
    items: list[dict[str, Any]]
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchmarkTask:
    """``requests``: all of one kind. ``score`` gets their outputs in order: Generate -> {"text", "tokens", "finished"},
    Choose -> list of log-likelihoods (nats), State -> float32 array [H]. ``translation``: the items' prompt, prediction
    and reference are source, translation and reference, which COMET can judge."""

    name: str
    requests: Sequence[Request]
    score: Callable[[list[Any]], Scored]
    translation: bool = False

    @property
    def kind(self) -> str:
        """``Generate``, ``Choose`` or ``State``."""
        return type(self.requests[0]).__name__

    def content(self) -> str:
        """Fingerprint of everything the model is asked."""
        return content_key(self.kind, [sorted(vars(r).items()) for r in self.requests])


Planner = Callable[[BenchmarkConfig], list[BenchmarkTask | tuple[str, str]]]
"""Configuration -> tasks; (task name, reason) where the data set does not serve a language."""
BENCHMARKS: Registry[list[BenchmarkTask | tuple[str, str]]] = Registry("benchmark")
"""name -> planner; filled by importing sdrrl_nemo.eval.suites."""
