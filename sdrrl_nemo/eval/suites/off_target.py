"""Instructions of Bactrian-X: how often the answer is in another language (Fig. 3), and where parallel instructions
lie in representation space (Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS
from sdrrl_nemo.eval.benchmark_config import BenchmarkConfig, new_tokens
from sdrrl_nemo.eval.readers.official_files import Instruction
from sdrrl_nemo.eval.scorers.alignment import alignment as aligned
from sdrrl_nemo.eval.scorers.alignment import tsne
from sdrrl_nemo.eval.scorers.off_target import off_target as judge
from sdrrl_nemo.eval.suites.common import Entry, first, measured, or_reason, read
from sdrrl_nemo.eval.task import BENCHMARKS, BenchmarkTask, Generate, Scored, State


@BENCHMARKS.register("off_target")
def off_target(config: BenchmarkConfig) -> list[Entry]:
    """Answers to instructions in each language; rate in percent of the answers long enough to judge."""
    o = config.off_target
    identifier = LANGUAGE_IDENTIFIERS.create(o.language_identifier.name, **o.language_identifier.options)

    def task(lang: str) -> BenchmarkTask:
        items: list[Instruction] = first(read(config, "bactrian", lang, o.id_prefix), config, "off_target")

        def score(outputs: Sequence[Any]) -> Scored:
            found = judge(identifier, [a["text"] for a in outputs], lang, o.min_letters)
            rows = [
                {
                    "id": x.id,
                    "prompt": x.prompt,
                    "prediction": a["text"],
                    "language": code,
                    "score": None if code is None else float(code != lang),
                    "finished": a["finished"],
                }
                for x, a, code in zip(items, outputs, found.languages, strict=True)
            ]
            rate = None if found.rate is None else 100.0 * found.rate
            extra = {"judged": found.judged, "languages": found.counts(), "identifier": identifier.identity}
            return Scored({"rate": rate}, rows, extra)

        limit = new_tokens(config, "off_target")
        requests = [Generate(x.prompt, limit, config.prompts.chat_template) for x in items]
        return BenchmarkTask(f"off_target.{lang}", requests, score)

    return [or_reason(f"off_target.{lang}", lambda lang=lang: task(lang)) for lang in measured(config)]  # type: ignore[misc]


@BENCHMARKS.register("alignment")
def alignment(config: BenchmarkConfig) -> list[Entry]:
    """Retrieval P@1, cosines and the t-SNE map of instructions that both languages have."""
    src, prefix = config.source_language, config.off_target.id_prefix

    def task(lang: str) -> BenchmarkTask:
        sides = [
            {x.id: x.prompt for x in read(config, "bactrian", code, prefix)} for code in (src, lang)
        ]  # fmt: skip
        ids = first([i for i in sides[0] if i in sides[1]], config, "alignment")
        if len(ids) < 2:
            raise SdrrlError(
                f"Bactrian-X in {src} and {lang} shares {len(ids)} ids; the files must come from one release"
            )
        perplexity = min(config.tsne_perplexity, (2 * len(ids) - 1) / 3)  # scikit-learn's bound for few points

        def score(outputs: Sequence[Any]) -> Scored:
            a, b = np.stack(outputs[: len(ids)]), np.stack(outputs[len(ids) :])
            found = aligned(a, b)
            rows = [
                {"id": i, "prediction": None, "score": hit, "margin": margin}
                for i, hit, margin in zip(ids, found.hits, found.margins, strict=True)
            ]
            left, right = tsne(a, b, perplexity, config.seed)
            metrics: dict[str, float | None] = {
                "precision_at_1": 100.0 * found.precision_at_1,
                "parallel": found.parallel,
                "non_parallel": found.non_parallel,
                "margin": found.margin,
            }
            picture = {"perplexity": perplexity, "source": np.round(left, 4).tolist(),
                       "target": np.round(right, 4).tolist()}  # fmt: skip
            return Scored(metrics, rows, {"tsne": picture})

        requests = [State(side[i]) for side in sides for i in ids]
        return BenchmarkTask(f"alignment.{src}-{lang}", requests, score)

    return [or_reason(f"alignment.{src}-{lang}", lambda lang=lang: task(lang)) for lang in config.languages]  # type: ignore[misc]
