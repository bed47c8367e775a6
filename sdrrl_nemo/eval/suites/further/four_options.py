"""INCLUDE-44 and Global-MMLU, full and lite: the likeliest of the letters A to D, zero-shot, as in lm_eval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.readers.further_files import FourOptions, read_global_mmlu, read_include
from sdrrl_nemo.eval.scorers.belebele import LETTERS, corpus_score, score_item
from sdrrl_nemo.eval.suites.belebele import likeliest_rows
from sdrrl_nemo.eval.suites.common import each, fetched, limited, measured
from sdrrl_nemo.eval.task import SUITES, Choose, Entry, Figure, Scored, Task


def prompt(item: FourOptions) -> str:
    """The question, its answers behind their letters, and the word before the letter; in English, as the harness."""
    answers = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, item.choices, strict=True)]
    return "\n".join([item.question.strip(), *answers, "Answer:"])


@SUITES.register("include")
def include(config: BenchmarkConfig) -> list[Entry]:
    """Accuracy in percent on INCLUDE-44 (Romanou et al. 2024): regional examinations, each written in its language."""
    return _accuracies(config, "include", "INCLUDE-44", read_include)


@SUITES.register("global_mmlu")
def global_mmlu(config: BenchmarkConfig) -> list[Entry]:
    """Accuracy in percent on Global-MMLU (Singh et al. 2024), also of the questions tagged CS and CA alone."""
    return _accuracies(config, "global_mmlu", "Global-MMLU", read_global_mmlu)


@SUITES.register("global_mmlu_lite")
def global_mmlu_lite(config: BenchmarkConfig) -> list[Entry]:
    """The same on Global-MMLU-Lite: 200 questions tagged CS and 200 tagged CA, translated or checked by people."""
    read = lambda data_dir, lang: read_global_mmlu(data_dir, lang, lite=True)  # noqa: E731
    return _accuracies(config, "global_mmlu_lite", "Global-MMLU-Lite", read)


def _accuracies(
    config: BenchmarkConfig, name: str, title: str, read: Callable[[str, str], list[FourOptions]]
) -> list[Entry]:
    def task(lang: str) -> Task:
        items: list[FourOptions] = limited(read(fetched(config, name, lang), lang), config, name)

        def score(outputs: Sequence[Any]) -> Scored:
            judged = [score_item(o, x.correct) for o, x in zip(outputs, items, strict=True)]
            kept = likeliest_rows(items, judged, outputs)
            rows = [{**row, "culture": x.culture} for row, x in zip(kept, items, strict=True)]
            label = f"{title}, accuracy, {language(lang).name}"
            figure = Figure(f"{name}.{lang}", label, lang, "%", "higher", "accuracy", scale=100.0)
            return Scored({"accuracy": corpus_score(judged).accuracy, **_by_culture(rows)}, rows, [figure])

        choices = tuple(" " + letter for letter in LETTERS)
        return Task(f"{name}.{lang}", [Choose(prompt(x), choices, False) for x in items], score)

    return each(f"{name}.", measured(config), task)


def _by_culture(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """``accuracy_cs`` (culturally sensitive) and ``accuracy_ca`` (agnostic) in percent, where questions are tagged."""
    tags = {r["culture"] for r in rows} - {""}
    return {
        f"accuracy_{tag.lower()}": 100.0 * fmean(r["score"] for r in rows if r["culture"] == tag)
        for tag in sorted(tags)
    }
