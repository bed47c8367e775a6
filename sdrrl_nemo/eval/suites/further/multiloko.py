"""MultiLoKo: short answers to questions of local interest; exact match, F1 and chrF by its own script's rules."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.readers.further_files import ShortAnswer, read_multiloko
from sdrrl_nemo.eval.scorers.multiloko import score_item
from sdrrl_nemo.eval.suites.common import each, limited, measured
from sdrrl_nemo.eval.task import SUITES, Entry, Figure, Generate, Scored, Task

NEW_TOKENS = 32
"""Longest answer where ``max_new_tokens`` says nothing."""


@SUITES.register("multiloko")
def multiloko(config: BenchmarkConfig) -> list[Entry]:
    """Exact match, the main figure, and F1 in percent; chrF from 0 to 100."""

    def task(lang: str) -> Task:
        items: list[ShortAnswer] = limited(read_multiloko(config.data_dir, lang), config, "multiloko")

        def score(outputs: Sequence[Any]) -> Scored:
            rows = []
            for x, o in zip(items, outputs, strict=True):
                found = score_item(o["text"], x.targets)
                rows.append(
                    {
                        "id": x.id,
                        "prompt": x.question,
                        "prediction": o["text"],
                        "reference": list(x.targets),
                        "score": found.em,
                        "f1": found.f1,
                        "chrf": found.chrf,
                    }
                )
            metrics: dict[str, float | None] = {
                "em": 100.0 * fmean(r["score"] for r in rows),
                "f1": 100.0 * fmean(r["f1"] for r in rows),
                "chrf": fmean(r["chrf"] for r in rows),
            }
            figures = [
                Figure(
                    f"multiloko.{lang}.{metric}", f"MultiLoKo, {title}, {name}", lang, unit, "higher", metric,
                    per_item=key, scale=scale,
                )
                for metric, title, unit, key, scale in (
                    ("em", "exact match", "%", "score", 100.0), ("f1", "token F1", "%", "f1", 100.0),
                    ("chrf", "chrF", "chrF", "chrf", 1.0),
                )
            ]  # fmt: skip
            return Scored(metrics, rows, figures)

        name, limit = language(lang).name, config.max_new_tokens.get("multiloko", NEW_TOKENS)
        prompts = [
            config.prompts.multiloko.format(language=name, question=x.question, kind=x.kind or "a few words")
            for x in items
        ]
        return Task(f"multiloko.{lang}", [Generate(p, limit, config.prompts.chat_template) for p in prompts], score)

    return each("multiloko.", measured(config), task)
