"""Where parallel texts lie in representation space (Fig. 2): held-out questions, and instructions of Bactrian-X."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.eval.config import BenchmarkConfig, EvalConfig
from sdrrl_nemo.eval.scorers.alignment import alignment as aligned
from sdrrl_nemo.eval.scorers.alignment import check_perplexity, map_points, tsne
from sdrrl_nemo.eval.suites.common import each, held_out, limited, read
from sdrrl_nemo.eval.task import HELD_OUT, SUITES, Entry, Figure, Scored, State, Task


def score_states(
    states: Sequence[Any], ids: Sequence[str], perplexity: float, seed: int, figures: Sequence[Figure]
) -> Scored:
    """Retrieval P@1 in percent, cosines and the t-SNE map; ``states``: all of the source side, then the target's."""
    a, b = np.stack(states[: len(ids)]), np.stack(states[len(ids) :])
    found = aligned(a, b)
    rows = [
        {"id": i, "prediction": None, "score": hit, "margin": margin}
        for i, hit, margin in zip(ids, found.hits, found.margins, strict=True)
    ]
    metrics: dict[str, float | None] = {
        "precision_at_1": 100.0 * found.precision_at_1,
        "parallel": found.parallel,
        "non_parallel": found.non_parallel,
        "margin": found.margin,
    }
    left, right = tsne(a, b, perplexity, seed)
    picture = {"perplexity": perplexity, "source": map_points(left), "target": map_points(right)}
    return Scored(metrics, rows, figures, {"tsne": picture})


def _figures(prefix: str, what: str, lang: str) -> list[Figure]:
    return [
        Figure(
            f"{prefix}.precision_at_1", f"Retrieval of parallel {what} (P@1)", lang, "%", "higher", "precision_at_1",
            scale=100.0,
        ),
        Figure(
            f"{prefix}.margin", f"Cosine of parallel minus non-parallel {what}", lang, "cosine", "higher", "margin",
            per_item="margin",
        ),
    ]  # fmt: skip


@SUITES.register("alignment")
def alignment(config: BenchmarkConfig) -> list[Entry]:
    """Instructions that both languages have."""
    src, prefix = config.source_language, config.off_target.id_prefix

    def task(lang: str) -> Task:
        sides = [{x.id: x.prompt for x in read(config, "bactrian", code, prefix)} for code in (src, lang)]
        ids = limited([i for i in sides[0] if i in sides[1]], config, "alignment")
        if len(ids) < 2:
            raise SdrrlError(
                f"Bactrian-X in {src} and {lang} shares {len(ids)} ids; the files must come from one release"
            )
        perplexity = min(config.tsne_perplexity, (2 * len(ids) - 1) / 3)  # scikit-learn's bound for few points
        figures = _figures(f"instructions.{src}-{lang}", "instructions", lang)

        def score(outputs: Sequence[Any]) -> Scored:
            return score_states(outputs, ids, perplexity, config.seed, figures)

        return Task(f"alignment.{src}-{lang}", [State(s[i]) for s in sides for i in ids], score)

    return each(f"alignment.{src}-", config.languages, task)


@HELD_OUT.register("held_out_alignment")
def held_out_alignment(config: EvalConfig) -> list[Entry]:
    """Held-out questions, in fp32; the texts go into the result so that the picture can name its points."""
    src, tgt, count, rows = config.source_language, config.target_language, config.alignment.questions, held_out(config)
    sides = {code: rows.asked(code, code, count) for code in (src, tgt)}
    check_perplexity(config.alignment.perplexity, 2 * len(sides[src]))
    texts = {"source": [s.prompt for s in sides[src]], "target": [s.prompt for s in sides[tgt]]}

    def score(outputs: Sequence[Any]) -> Scored:
        ids, perplexity = [s.id for s in sides[src]], config.alignment.perplexity
        found = score_states(outputs, ids, perplexity, config.seed, _figures("alignment", "questions", tgt))
        return Scored(found.metrics, found.items, found.figures, {**found.extra, "texts": texts})

    requests = [State(s.prompt, code) for code, samples in sides.items() for s in samples]
    return [Task(f"alignment.{src}-{tgt}", requests, score, dtype="float32")]
