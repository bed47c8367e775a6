"""Belebele, zero-shot: the likeliest of the letters A to D, or the letter that the model writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.readers.further_files import FourOptions
from sdrrl_nemo.eval.readers.official_files import Belebele
from sdrrl_nemo.eval.scorers.belebele import LETTERS, Choice, corpus_score, score_generated, score_item
from sdrrl_nemo.eval.suites.common import each, limited, measured, read, side
from sdrrl_nemo.eval.task import SUITES, Choose, Entry, Figure, Generate, Scored, Task

NEW_TOKENS = 8
"""Longest answer where ``max_new_tokens`` says nothing."""

PAPER = (
    "Given the following passage, query, and answer choices, output the letter corresponding to the correct answer.\n"
    "###\nPassage:\n{passage}\n###\nQuery:\n{question}\n###\nChoices:\n(A) {a}\n(B) {b}\n(C) {c}\n(D) {d}\n"
    "###\nAnswer:\n"
)
"""sample_zero_shot_instructions.md of facebookresearch/belebele, the prompt of Belebele's own zero-shot results."""
LM_EVAL = "P: {passage}\nQ: {question}\nA: {a}\nB: {b}\nC: {c}\nD: {d}\nAnswer:"
"""lm-evaluation-harness 0.4.13; the letter follows after a space."""


def prompt(item: Belebele, style: str) -> str:
    """The question as the model reads it; ``style``: ``paper`` or ``lm_eval``."""
    a, b, c, d = item.choices
    template = PAPER if style == "paper" else LM_EVAL
    return template.format(passage=item.passage, question=item.question.strip(), a=a, b=b, c=c, d=d)


def _figure(name: str, what: str, lang: str, published: tuple[str, str, str] | None = None) -> Figure:
    title = f"Belebele, {what}, {language(lang).name}"
    return Figure(f"{name}.{lang}", title, lang, "%", "higher", "accuracy", scale=100.0, published=published)


def likeliest_rows(
    items: Sequence[Belebele | FourOptions], judged: Sequence[Choice], outputs: Sequence[Any]
) -> list[dict[str, Any]]:
    """What is kept of each question whose four letters were compared: ``outputs`` are their log-likelihoods in nats."""
    return [
        {
            "id": x.id,
            "prediction": None if j.picked is None else LETTERS[j.picked],
            "reference": LETTERS[x.correct],
            "score": j.score,
            "log_likelihoods": list(o),
        }
        for x, j, o in zip(items, judged, outputs, strict=True)
    ]


@SUITES.register("belebele")
def likelihood(config: BenchmarkConfig) -> list[Entry]:
    """Accuracy in percent by log-likelihood; items carry the four log-likelihoods (nats)."""
    style, chat = config.prompts.belebele, config.prompts.belebele_chat
    gap = "" if style == "paper" or chat else " "

    def task(lang: str) -> Task:
        items: list[Belebele] = limited(read(config, "belebele", lang), config, "belebele")

        def score(outputs: Sequence[Any]) -> Scored:
            judged = [score_item(o, x.correct) for o, x in zip(outputs, items, strict=True)]
            rows = likeliest_rows(items, judged, outputs)
            published = ("BELEBELE", "accuracy", side(lang, config.source_language))
            figure = _figure("belebele", "accuracy by likelihood", lang, published)
            return Scored({"accuracy": corpus_score(judged).accuracy}, rows, [figure])

        choices = tuple(gap + letter for letter in LETTERS)
        return Task(f"belebele.{lang}", [Choose(prompt(x, style), choices, chat) for x in items], score)

    return each("belebele.", measured(config), task)


@SUITES.register("belebele_letter")
def letter(config: BenchmarkConfig) -> list[Entry]:
    """Accuracy in percent of the generated letter; an answer that names no letter is wrong."""

    def task(lang: str) -> Task:
        items: list[Belebele] = limited(read(config, "belebele", lang), config, "belebele_letter")

        def score(outputs: Sequence[Any]) -> Scored:
            judged = [score_generated(o["text"], x.correct) for o, x in zip(outputs, items, strict=True)]
            rows = [
                {
                    "id": x.id,
                    "prediction": o["text"],
                    "picked": None if j.picked is None else LETTERS[j.picked],
                    "reference": LETTERS[x.correct],
                    "score": j.score,
                }
                for x, j, o in zip(items, judged, outputs, strict=True)
            ]
            total = corpus_score(judged)
            answered = 100.0 * (total.items - total.unanswered) / total.items
            figure = _figure("belebele_letter", "accuracy of the written letter", lang)
            return Scored({"accuracy": total.accuracy, "answered": answered}, rows, [figure])

        limit, chat = config.max_new_tokens.get("belebele_letter", NEW_TOKENS), config.prompts.chat_template
        requests = [Generate(prompt(x, config.prompts.belebele), limit, chat) for x in items]
        return Task(f"belebele_letter.{lang}", requests, score)

    return each("belebele_letter.", measured(config), task)
