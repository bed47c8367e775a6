"""How well a quality estimator tells true translations from spoilt ones, and how many true ones each filter rejects.

A parallel corpus stands for good translations. Three ways of spoiling them stand for bad ones:

    shuffled   the translation of another sentence (none keeps its own)
    truncated  the first half of the translation's words
    copied     the source, untranslated
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import require
from sdrrl_nemo.common.seeding import named_generator
from sdrrl_nemo.data.config import Pair
from sdrrl_nemo.data.engines.base import LanguageIdentifier, ParallelCorpus, QualityEstimator
from sdrrl_nemo.data.filters import Filter, TextPair
from sdrrl_nemo.data.pairs import pair_name
from sdrrl_nemo.data.stages.judge import LanguageId
from sdrrl_nemo.data.text import words

SPOILT = ("shuffled", "truncated", "copied")
RESAMPLES = 1000
MANY = 0.05
"""A filter that rejects a larger share of true pairs than this deserves a look at its threshold."""
EXAMPLES = 5
"""Rejected true pairs that such a filter shows."""


def true_pairs(corpus: ParallelCorpus, pair: Pair, limit: int | None = None) -> list[TextPair]:
    """The first ``limit`` pairs of a corpus; SdrrlError when there are fewer than two."""
    found = [TextPair(s, t, *pair) for s, t in islice(corpus.pairs(*pair), limit)]
    if len(found) < 2:
        raise SdrrlError(f"{pair_name(pair)}: the parallel corpus has {len(found)} pairs; at least 2 are needed")
    return found


def sample(pairs: Sequence[TextPair], count: int, seed: int) -> list[TextPair]:
    """``count`` pairs (or all) drawn without replacement, in the corpus' order."""
    rng = named_generator(seed, "quality study", "sample", pairs[0].source_language, pairs[0].target_language)
    chosen = rng.permutation(len(pairs))[:count]
    return [pairs[i] for i in sorted(chosen)]


def spoil(pairs: Sequence[TextPair], seed: int) -> dict[str, list[str]]:
    """Way of spoiling -> one bad translation for each pair, in the same order."""
    rng = named_generator(seed, "quality study", "shuffle", pairs[0].source_language, pairs[0].target_language)
    order = rng.permutation(len(pairs))
    shuffled = [""] * len(pairs)
    for here, there in zip(order, np.roll(order, 1), strict=True):  # one cycle: nobody keeps his own
        shuffled[here] = pairs[there].target
    return {
        "shuffled": shuffled,
        "truncated": [first_half(p.target, p.target_language) for p in pairs],
        "copied": [p.source for p in pairs],
    }


def first_half(text: str, code: str) -> str:
    """The text up to the end of the first half of its words; of a single word, of its characters."""
    spans = words.tokenize(text, code)
    if len(spans) > 1:
        return text[: spans[len(spans) // 2 - 1][1]]
    characters = words.graphemes(text)
    return text[: characters[max(0, len(characters) // 2 - 1)][1]] if characters else text


def threshold(scores: Sequence[float], keep: float) -> float:
    """The largest tau for which at least ``keep`` of the scores are not below it."""
    ordered = sorted(scores)
    return ordered[min(len(ordered) - 1, math.floor((1 - keep) * len(ordered) + 1e-9))]


def study_estimator(
    engine: QualityEstimator, pairs: Sequence[TextPair], tau: float, keep: float, seed: int
) -> dict[str, Any]:
    """Scores of true and spoilt translations summed up.

    For each way of spoiling: ``auc``, the chance that a true translation scores above a spoilt one (ties count half),
    and the share rejected at ``tau`` (the configured threshold) and at the tau that keeps the share ``keep`` of the
    true ones; that tau comes with the interval that holds 95% of its bootstrap resamples.
    """
    metrics = require("sklearn.metrics", "scikit-learn", "eval")
    variants = {"true": [p.target for p in pairs], **spoil(pairs, seed)}
    sources = [p.source for p in pairs] * len(variants)
    flat = engine.score(sources, [text for texts in variants.values() for text in texts])
    scores = {name: flat[i * len(pairs) : (i + 1) * len(pairs)] for i, name in enumerate(variants)}
    good = scores["true"]
    best = threshold(good, keep)
    rng = named_generator(seed, "quality study", "bootstrap")
    drawn = [threshold(rng.choice(good, len(good)).tolist(), keep) for _ in range(RESAMPLES)]
    out: dict[str, Any] = {
        "pairs": len(pairs),
        "tau_for_keep": best,
        "tau_interval": np.percentile(drawn, [2.5, 97.5]).round(4).tolist(),
        "true": {"mean": _mean(good), "rejected_at_configured_tau": _below(good, tau)},
    }
    for name in SPOILT:
        labels = [1] * len(good) + [0] * len(pairs)
        out[name] = {
            "auc": round(float(metrics.roc_auc_score(labels, good + scores[name])), 4),
            "mean": _mean(scores[name]),
            "rejected_at_configured_tau": _below(scores[name], tau),
            "rejected_at_tau_for_keep": _below(scores[name], best),
        }
    return out


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def _below(values: Sequence[float], tau: float) -> float:
    return round(sum(value < tau for value in values) / len(values), 4)


def study_filters(filters: Mapping[str, Filter], pairs: Sequence[TextPair]) -> dict[str, Any]:
    """Filter -> {"share": of the true pairs that it rejects, each filter by itself, "examples"}; ``any`` for all."""
    reasons = {name: [f.reject(p) for p in pairs] for name, f in filters.items()}
    rejected = [any(verdicts) for verdicts in zip(*reasons.values(), strict=True)]
    out = {name: _false_rejects(pairs, found) for name, found in reasons.items()}
    return {**out, "any": {"share": round(sum(rejected) / len(pairs), 4), "examples": []}}


def study_identifier(
    engine: LanguageIdentifier, pairs: Sequence[TextPair], min_letters: int, min_probability: float
) -> dict[str, Any]:
    """Share of true translations that the language-id stage would reject under its bounds, with examples."""
    bounds = (min_letters, min_probability)
    stage = LanguageId("language-id", engine, {}, pairs[0].target_language, bounds, len(pairs))
    return _false_rejects(pairs, [v.rejection and v.rejection.detail for v in stage.judge(list(pairs))])


def _false_rejects(pairs: Sequence[TextPair], reasons: Sequence[str | None]) -> dict[str, Any]:
    hit = [(p, reason) for p, reason in zip(pairs, reasons, strict=True) if reason]
    share = round(len(hit) / len(pairs), 4)
    shown = [{"source": p.source, "target": p.target, "reason": reason} for p, reason in hit[:EXAMPLES]]
    return {"share": share, "examples": shown if share > MANY else []}
