"""MKQA: short answers to open questions, token F1 by the official script's rules; unanswerable ones skipped."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.readers.official_files import Mkqa
from sdrrl_nemo.eval.scorers.mkqa import score_item
from sdrrl_nemo.eval.suites.common import each, limited, measured, read, side
from sdrrl_nemo.eval.task import SUITES, Entry, Figure, Generate, Scored, Task

NEW_TOKENS = 32
"""Longest answer where ``max_new_tokens`` says nothing."""

# fmt: off
YES_NO = {
    "eng": ("yes", "no"), "dan": ("ja", "nej"), "fin": ("kyllä", "ei"), "fra": ("oui", "non"),
    "hun": ("igen", "nem"), "jpn": ("はい", "いいえ"), "khm": ("បាទ", "ទេ"), "kor": ("예", "아니요"),
    "nob": ("ja", "nei"), "pol": ("tak", "nie"), "por": ("sim", "não"), "tha": ("ใช่", "ไม่"), "vie": ("có", "không"),
    "spa": ("sí", "no"),
}
# fmt: on
"""MKQA's gold answer to a ``binary`` question is ``yes`` or ``no`` in every language, and its predictions have a field
``binary_answer`` for it. An answer that begins with its language's word for yes or no counts as that."""


def binary_answer(text: str, lang: str) -> str | None:
    """``yes``, ``no`` or None; English yes and no are understood in every language."""
    said = text.strip().lower()
    for gold, own in zip(("yes", "no"), YES_NO[lang], strict=True):
        for word in (own, gold):
            rest = said[len(word) :]
            if said.startswith(word) and (not language(lang).spaces or lang == "jpn" or not rest[:1].isalpha()):
                return gold
    return None


@SUITES.register("mkqa")
def mkqa(config: BenchmarkConfig) -> list[Entry]:
    """F1 and exact match in percent."""

    def task(lang: str) -> Task:
        items, skipped = read(config, "mkqa", lang)
        kept: list[Mkqa] = limited(items, config, "mkqa")

        def score(outputs: Sequence[Any]) -> Scored:
            rows = []
            for x, o in zip(kept, outputs, strict=True):
                yes_no = binary_answer(o["text"], lang) if "binary" in x.types else None
                found = score_item(yes_no or o["text"], x.answers, lang)
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
            figure = Figure(
                f"mkqa.{lang}", f"MKQA, token F1, {name}", lang, "%", "higher", "f1", scale=100.0,
                published=("MKQA", "F1", side(lang, config.source_language)),
            )  # fmt: skip
            return Scored(metrics, rows, [figure], {"unanswerable_skipped": skipped})

        name, limit = language(lang).name, config.max_new_tokens.get("mkqa", NEW_TOKENS)
        prompts = [config.prompts.mkqa.format(language=name, question=x.question) for x in kept]
        requests = [Generate(p, limit, config.prompts.chat_template) for p in prompts]
        return Task(f"mkqa.{lang}", requests, score)

    return each("mkqa.", measured(config), task)
