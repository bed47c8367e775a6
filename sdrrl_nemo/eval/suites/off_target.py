"""How often an answer is in another language (Fig. 3): held-out questions, and instructions of Bactrian-X."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sdrrl_nemo.common.precision import resolve
from sdrrl_nemo.data.engines.base import LanguageIdentifier
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.config import BenchmarkConfig, EvalConfig
from sdrrl_nemo.eval.readers.held_out_files import Sample
from sdrrl_nemo.eval.readers.official_files import Instruction
from sdrrl_nemo.eval.scorers.off_target import off_target as judge_texts
from sdrrl_nemo.eval.suites.common import each, held_out, identifier, limited, measured, read
from sdrrl_nemo.eval.task import HELD_OUT, SUITES, Entry, Figure, Generate, Scored, Task

NEW_TOKENS = 96
"""Longest answer where ``max_new_tokens`` says nothing."""

Scorer = Callable[[list[Any]], Scored]


def judge(
    samples: Sequence[Sample | Instruction], outputs: Sequence[Any], judged_by: LanguageIdentifier, expected: str,
    min_letters: int, name: str, what: str,
) -> Scored:  # fmt: skip
    """Rate in percent of the answers long enough to judge; ``score`` is 1 for an answer that is not in ``expected``.

    ``name`` becomes the figure's, and ``what`` says what was asked.
    """
    found = judge_texts(judged_by, [o["text"] for o in outputs], expected, min_letters)
    rows = [
        {
            "id": s.id,
            "prompt": s.prompt,
            "prediction": o["text"],
            "language": code,
            "score": None if code is None else float(code != expected),
            "tokens": o["tokens"],
            "finished": o["finished"],
            **({"reference": s.reference} if isinstance(s, Sample) else {}),
        }
        for s, o, code in zip(samples, outputs, found.languages, strict=True)
    ]
    title = f"Off-target rate, {what} {language(expected).name}"
    figure = Figure(name, title, expected, "%", "lower", "rate", scale=100.0)
    extra = {"judged": found.judged, "languages": found.counts(), "identifier": judged_by.identity}
    return Scored({"rate": None if found.rate is None else 100.0 * found.rate}, rows, [figure], extra)


@SUITES.register("off_target")
def off_target(config: BenchmarkConfig) -> list[Entry]:
    """Answers to instructions in each language."""
    o = config.off_target
    judged_by, limit = identifier(o.language_identifier), config.max_new_tokens.get("off_target", NEW_TOKENS)

    def task(lang: str) -> Task:
        items: list[Instruction] = limited(read(config, "bactrian", lang, o.id_prefix), config, "off_target")

        def score(outputs: Sequence[Any]) -> Scored:
            return judge(items, outputs, judged_by, lang, o.min_letters, f"off_target.{lang}", "instructions,")

        requests = [Generate(x.prompt, limit, config.prompts.chat_template) for x in items]
        return Task(f"off_target.{lang}", requests, score)

    return each("off_target.", measured(config), task)


@HELD_OUT.register("held_out_answers")
def held_out_answers(config: EvalConfig) -> list[Entry]:
    """Answers to held-out questions in both languages."""
    rows, judged_by = held_out(config), identifier(config.language_identifier)

    def task(lang: str) -> Task:
        samples, name = rows.asked(lang, lang, config.generation.questions), f"answers.{lang}"

        def score(outputs: Sequence[Any]) -> Scored:
            least, what = config.off_target.min_letters, "answers to questions in"
            return judge(samples, outputs, judged_by, lang, least, f"off_target.{name}", what)

        return answering(config, name, samples, score)

    return [task(code) for code in (config.target_language, config.source_language)]


def answering(config: EvalConfig, name: str, samples: Sequence[Sample], score: Scorer) -> Task:
    """Greedy answers to held-out samples, by ``generation`` of the configuration."""
    g = config.generation
    requests = [Generate(s.prompt, g.max_new_tokens, True) for s in samples]
    return Task(name, requests, score, dtype=resolve(g.dtype, "bfloat16", "float32"), batch_size=g.batch_size)
