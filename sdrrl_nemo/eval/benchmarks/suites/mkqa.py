"""MKQA: short answers to open questions, token F1 by the official script's rules; unanswerable ones skipped."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sdrrl_nemo.data.languages import language
from sdrrl_nemo.eval.benchmarks.config import BenchmarkConfig, new_tokens
from sdrrl_nemo.eval.benchmarks.readers import Mkqa
from sdrrl_nemo.eval.benchmarks.suites.common import Entry, first, measured, or_reason, read
from sdrrl_nemo.eval.benchmarks.task import BENCHMARKS, BenchmarkTask, Generate, Scored
from sdrrl_nemo.eval.scorers.mkqa import score_item


@BENCHMARKS.register("mkqa")
def mkqa(config: BenchmarkConfig) -> list[Entry]:
    """F1 and exact match in percent."""

    def task(lang: str) -> BenchmarkTask:
        items, skipped = read(config, "mkqa", lang)
        kept: list[Mkqa] = first(items, config, "mkqa")

        def score(outputs: Sequence[Any]) -> Scored:
            rows = []
            for x, o in zip(kept, outputs, strict=True):
                found = score_item(o["text"], x.answers, lang)
                rows.append(
                    {
                        "id": x.id,
                        "prompt": x.question,
                        "prediction": o["text"],
                        "reference": list(x.answers),
                        "types": list(x.types),
                        "score": found.f1,
                        "exact_match": found.exact_match,
                    }
                )
            metrics: dict[str, float | None] = {
                "f1": 100.0 * fmean(r["score"] for r in rows),
                "em": 100.0 * fmean(r["exact_match"] for r in rows),
            }
            return Scored(metrics, rows, {"unanswerable_skipped": skipped})

        name, limit = language(lang).name, new_tokens(config, "mkqa")
        prompts = [config.prompts.mkqa.format(language=name, question=x.question) for x in kept]
        requests = [Generate(p, limit, config.prompts.chat_template) for p in prompts]
        return BenchmarkTask(f"mkqa.{lang}", requests, score)

    return [or_reason(f"mkqa.{lang}", lambda lang=lang: task(lang)) for lang in measured(config)]  # type: ignore[misc]
