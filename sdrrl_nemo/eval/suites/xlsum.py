"""XL-Sum: one-sentence summaries of news, ROUGE with XL-Sum's tokenisers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.readers.official_files import Article
from sdrrl_nemo.eval.scorers.rouge import score_item, scorer
from sdrrl_nemo.eval.suites.common import each, limited, measured, read, side
from sdrrl_nemo.eval.task import SUITES, Entry, Figure, Generate, Scored, Task

NEW_TOKENS = 96
"""Longest answer where ``max_new_tokens`` says nothing."""


@SUITES.register("xlsum")
def xlsum(config: BenchmarkConfig) -> list[Entry]:
    """ROUGE-1 and ROUGE-L F1 in percent; ``shortened`` counts articles cut to fit the model's positions."""

    def task(lang: str) -> Task:
        scorer(lang)  # says before the model is asked what it lacks
        items: list[Article] = limited(read(config, "xlsum", lang), config, "xlsum")

        def score(outputs: Sequence[Any]) -> Scored:
            rows = []
            for x, o in zip(items, outputs, strict=True):
                found = score_item(o["text"], x.summary, lang)
                rows.append(
                    {
                        "id": x.id,
                        "prediction": o["text"],
                        "reference": x.summary,
                        "score": found.rougeL,
                        "rouge1": found.rouge1,
                        "rouge2": found.rouge2,
                        "shortened": bool(o.get("shortened", False)),
                    }
                )
            metrics: dict[str, float | None] = {
                "rouge1": 100.0 * fmean(float(r["rouge1"]) for r in rows),
                "rougeL": 100.0 * fmean(float(r["score"]) for r in rows),
            }
            figures = [
                Figure(
                    f"xlsum.{lang}.{metric}", f"XL-Sum, {title} F1, {name}", lang, "%", "higher", metric,
                    per_item=key, scale=100.0, published=("XL-SUM", title, side(lang, config.source_language)),
                )
                for title, metric, key in (("ROUGE-1", "rouge1", "rouge1"), ("ROUGE-L", "rougeL", "score"))
            ]  # fmt: skip
            return Scored(metrics, rows, figures, {"shortened": sum(bool(r["shortened"]) for r in rows)})

        name, limit = language(lang).name, config.max_new_tokens.get("xlsum", NEW_TOKENS)
        prompts = [config.prompts.xlsum.format(language=name, text=x.text) for x in items]
        requests = [
            Generate(p, limit, config.prompts.chat_template, x.text) for p, x in zip(prompts, items, strict=True)
        ]
        return Task(f"xlsum.{lang}", requests, score)

    return each("xlsum.", measured(config), task)
