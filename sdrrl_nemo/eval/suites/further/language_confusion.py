"""Language Confusion Benchmark: one task for each of its sources, in the language's own prompts and in English ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.readers.confusion_archive import fetch_language_confusion
from sdrrl_nemo.eval.readers.further_files import Prompt, read_english_words, read_language_confusion
from sdrrl_nemo.eval.readers.official_files import NotCovered
from sdrrl_nemo.eval.scorers.language_confusion import corpus_score, score_items
from sdrrl_nemo.eval.suites.common import identifier, limited, measured
from sdrrl_nemo.eval.task import SUITES, Entry, Figure, Generate, Scored, Task

NEW_TOKENS = 100
"""Longest answer where ``max_new_tokens`` says nothing: the authors' own."""


@SUITES.register("language_confusion")
def language_confusion(config: BenchmarkConfig) -> list[Entry]:
    """Line and word pass rates in percent; None where no answer is long enough to judge."""
    own = config.language_confusion
    if config.download:
        fetch_language_confusion(config.data_dir, config.hub.get("language_confusion", ""), own.words)
    judged_by, words = identifier(own.language_identifier), read_english_words(config.data_dir, own.words)
    limit = config.max_new_tokens.get("language_confusion", NEW_TOKENS)

    def task(lang: str, setting: str, source: str, rows: Sequence[Prompt]) -> Task:
        items: list[Prompt] = limited(rows, config, "language_confusion")
        name = f"language_confusion.{setting}-{source}.{lang}"

        def score(outputs: Sequence[Any]) -> Scored:
            found = score_items([o["text"] for o in outputs], lang, judged_by, words)
            rates = corpus_score(found, lang)
            table = [
                {
                    "id": x.id,
                    "prompt": x.prompt,
                    "prediction": o["text"],
                    "score": f.line_pass,
                    "word_pass": f.word_pass,
                    "lines": f.lines,
                    "wrong_lines": f.wrong,
                }
                for x, o, f in zip(items, outputs, found, strict=True)
            ]
            metrics = {"lpr": rates.lpr, "line_accuracy": rates.accuracy, "wpr": rates.wpr}
            shown: dict[str, float | None] = {"lpr": None}
            if rates.judged:
                shown = {k: 100.0 * v for k, v in metrics.items() if v is not None}
            title = f"Language confusion, line pass rate, {setting} {source}, {language(lang).name}"
            figure = Figure(name, title, lang, "%", "higher", "lpr", scale=100.0)
            return Scored(shown, table, [figure], {"judged": rates.judged, "identifier": judged_by.identity})

        return Task(name, [Generate(x.prompt, limit, config.prompts.chat_template) for x in items], score)

    out: list[Entry] = []
    for lang in measured(config):
        try:
            files = read_language_confusion(config.data_dir, lang)
        except NotCovered as e:
            out.append((f"language_confusion.{lang}", str(e)))
            continue
        out += [task(lang, setting, source, rows) for (setting, source), rows in files.items()]
    return out
