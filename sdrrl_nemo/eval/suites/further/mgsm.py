"""MGSM: school mathematics, answered with reasoning; the number behind the heading at the end counts."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.readers.further_files import ShortAnswer, read_mgsm
from sdrrl_nemo.eval.scorers.mgsm import HEADINGS, extract_number, score_item
from sdrrl_nemo.eval.suites.common import each, fetched, limited, measured
from sdrrl_nemo.eval.task import SUITES, Entry, Figure, Generate, Scored, Task

NEW_TOKENS = 512
"""Longest answer where ``max_new_tokens`` says nothing."""


@SUITES.register("mgsm")
def mgsm(config: BenchmarkConfig) -> list[Entry]:
    """Accuracy in percent; ``answered`` is the share of answers with a number behind the heading."""

    def task(lang: str) -> Task:
        items: list[ShortAnswer] = limited(read_mgsm(fetched(config, "mgsm", lang), lang), config, "mgsm")
        heading = HEADINGS[lang]

        def score(outputs: Sequence[Any]) -> Scored:
            rows = [
                {
                    "id": x.id,
                    "prompt": x.question,
                    "prediction": o["text"],
                    "number": extract_number(o["text"], heading),
                    "reference": x.targets[0],
                    "score": score_item(o["text"], x.targets[0], lang),
                }
                for x, o in zip(items, outputs, strict=True)
            ]
            metrics: dict[str, float | None] = {
                "accuracy": 100.0 * fmean(float(r["score"]) for r in rows),
                "answered": 100.0 * fmean(bool(r["number"]) for r in rows),
            }
            title = f"MGSM, accuracy, {language(lang).name}"
            figure = Figure(f"mgsm.{lang}", title, lang, "%", "higher", "accuracy", scale=100.0)
            return Scored(metrics, rows, [figure])

        limit, names = config.max_new_tokens.get("mgsm", NEW_TOKENS), {"language": language(lang).name}
        prompts = [config.prompts.mgsm.format(question=x.question, heading=heading, **names) for x in items]
        return Task(f"mgsm.{lang}", [Generate(p, limit, config.prompts.chat_template) for p in prompts], score)

    return each("mgsm.", measured(config), task)
