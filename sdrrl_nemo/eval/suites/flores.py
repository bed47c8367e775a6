"""Devtest of FLORES-200 and of FLORES+ in both directions: sacreBLEU, chrF++ and, where its environment is, COMET."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.scorers import bleu
from sdrrl_nemo.eval.suites.common import arrow, bleu_options, limited, read
from sdrrl_nemo.eval.task import SUITES, Entry, Figure, Generate, Scored, Task

NEW_TOKENS = 256
"""Longest answer where ``max_new_tokens`` says nothing."""


@SUITES.register("flores")
def flores(config: BenchmarkConfig) -> list[Entry]:
    """Corpus BLEU and chrF++ (0 to 100); the items' ``score`` is sentence BLEU."""
    return _both_ways(config, "flores", "FLORES")


@SUITES.register("flores_plus")
def flores_plus(config: BenchmarkConfig) -> list[Entry]:
    """The same of FLORES+, which goes on mending and adding to FLORES-200; the paper's tables have FLORES-200."""
    return _both_ways(config, "flores_plus", "FLORES+")


def _both_ways(config: BenchmarkConfig, data: str, name: str) -> list[Entry]:
    for lang in (config.source_language, *config.languages):
        bleu.check(**bleu_options(config, lang))
    src, comet = config.source_language, config.comet.enabled
    sentences = {lang: read(config, data, lang) for lang in (src, *config.languages)}
    for lang, lines in sentences.items():
        if len(lines) != len(sentences[src]):
            raise SdrrlError(
                f"{config.data_dir}, {name}: {len(lines)} sentences in {lang}, "
                f"{len(sentences[src])} in {src}; the files must come from one release"
            )

    def task(one: str, other: str) -> Task:
        how = bleu_options(config, other)
        given, wanted = (limited(sentences[x], config, data) for x in (one, other))

        def score(outputs: Sequence[Any]) -> Scored:
            texts = [" ".join(str(o["text"]).split()) for o in outputs]  # the metric takes one line a sentence
            corpus = bleu.corpus_score(texts, wanted, **how)
            rows = [
                {
                    "id": str(n),
                    "prompt": s,
                    "prediction": t,
                    "reference": w,
                    "score": bleu.score_item(t, w, **how).bleu,
                }
                for n, (s, t, w) in enumerate(zip(given, texts, wanted, strict=True), 1)
            ]
            figures = [
                figure("bleu", "BLEU", kind="bleu", options=how, published="BLEU"),
                figure("chrf", "chrF++", kind="chrf", per_item="", options={"word_order": 2}),
                *([figure("comet", "COMET", per_item="comet", scale=100.0, published="COMET")] if comet else []),
            ]
            extra = {"signature": corpus.signature}
            return Scored({"bleu": corpus.bleu, "chrf": corpus.chrf}, rows, figures, extra)

        def figure(metric: str, label: str, published: str = "", **about: Any) -> Figure:
            table = (
                ("FLORES", published, "en-xx" if one == src else "xx-en") if published and data == "flores" else None
            )
            title = f"{name}, {label}, {arrow(one, other)}"
            return Figure(
                f"{data}.{one}-{other}.{metric}", title, other, label, "higher", metric, published=table, **about
            )  # fmt: skip

        names = {"source": language(one).name, "target": language(other).name}
        requests = [
            Generate(
                config.prompts.flores.format(sentence=s, **names),
                config.max_new_tokens.get(data, NEW_TOKENS),
                config.prompts.chat_template,
            )
            for s in given
        ]
        return Task(f"{data}.{one}-{other}", requests, score, translation=True)

    return [task(*pair) for lang in config.languages for pair in ((src, lang), (lang, src))]
