"""Which thresholds a hand-judged set speaks for: each option alone over a few values, and tau by language pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from sdrrl_nemo.common.optional import require
from sdrrl_nemo.data.pairs import pair_name
from sdrrl_nemo.data.studies.pairs_study import PairsStudy
from sdrrl_nemo.data.studies.rejections import Verdicts, figures, together
from sdrrl_nemo.data.studies.tau_study import threshold

FILTER_VALUES: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("length_ratio", "minimum", (0.4, 0.5, 0.6, 0.7, 0.8)),
    ("length_ratio", "maximum", (1.4, 1.6, 1.8, 2.0, 2.5)),
    ("length_ratio", "slack", (5, 10, 15, 20)),
    ("repetition", "maximum", (0.1, 0.2, 0.3, 0.4)),
    ("repetition", "min_ngrams", (4, 8, 12)),
    ("repeated_sentences", "maximum", (1, 2, 3)),
    ("copy", "maximum", (0.3, 0.4, 0.5, 0.6, 0.7)),
    ("copy", "min_words", (2, 3, 4, 6)),
    ("numbers", "max_extra", (0, 1, 2)),
    ("punctuation", "max_difference", (0, 1, 2)),
    ("script", "minimum", (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
    ("character_ratio", "maximum_loss", (0.1, 0.15, 0.2, 0.25, 0.3)),
)
"""(filter, option, values that are tried); everything else stays as configured."""
BOUNDS = "min_letters, min_probability"
LETTERS = (10, 20, 30, 40, 60)
PROBABILITIES = (0.0, 0.5, 0.7, 0.85)
TAUS = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)


def sweeps(study: PairsStudy, identifiers: Sequence[str], scores: Mapping[int, float]) -> list[dict[str, Any]]:
    """One row for each value of each option: ``judge``, ``option``, ``value``, and how many it rejects alone.

    A filter's option is tried where the configuration has the filter. The bounds of language identification are tried
    together (letters x probability), since a short text is also an unsure one. The estimator's tau is tried by itself,
    on the pairs that it serves, and behind the filters and language identification, on all.
    """
    configured = {f.name for config in study.configs.values() for f in config.filters}
    rows: list[dict[str, Any]] = []
    for name, option, values in FILTER_VALUES:
        if name in configured:
            rows += [_row(study, name, option, v, study.filters((name, option, v))[name]) for v in values]
    for name in identifiers:
        for bounds in product(LETTERS, PROBABILITIES):
            rows.append(_row(study, name, BOUNDS, list(bounds), study.identifier(name, bounds)))
    before = together(*study.filters().values(), study.identifier())
    for tau in TAUS if scores else ():
        verdicts = study.below(scores, tau)
        rows.append(_row(study, "estimator", "tau", tau, verdicts, list(scores)))
        rows.append(_row(study, "everything", "tau", tau, together(before, verdicts)))
    return rows


def _row(
    study: PairsStudy, judge: str, option: str, value: Any, verdicts: Verdicts, places: Sequence[int] | None = None
) -> dict[str, Any]:
    where = range(len(study.pairs)) if places is None else places
    found = figures([study.pairs[i] for i in where], [verdicts[i] for i in where])
    counts = {name: found[name] for name in ("right_rejected", "wrong_rejected")}
    return {"judge": judge, "option": option, "value": value, **counts}


def taus(study: PairsStudy, scores: Mapping[int, float], keep: float) -> dict[str, dict[str, Any]]:
    """Language pair (and ``all``) -> what its scores say about tau; pairs that the estimator does not serve are absent.

    ``auc``: the chance that a right translation scores above a wrong one, ties counting half; ``tau_for_keep``: the
    largest tau that keeps the share ``keep`` of the right ones; `figures` at that tau and at the configured one.
    """
    groups = {pair_name(pair): [i for i in where if i in scores] for pair, where in study.places.items()}
    groups = {**{name: where for name, where in groups.items() if where}, "all": sorted(scores)}
    return {name: dict(_tau(study, scores, where, keep)) for name, where in groups.items() if where}


def _tau(
    study: PairsStudy, scores: Mapping[int, float], where: Sequence[int], keep: float
) -> Iterator[tuple[str, Any]]:
    pairs = [study.pairs[i] for i in where]
    right = [scores[i] for i in where if study.pairs[i].right]
    labels = [pair.right for pair in pairs]
    yield "auc", _auc(labels, [scores[i] for i in where])
    best = threshold(right, keep) if right else None
    yield "tau_for_keep", best
    for name, tau in (("at_configured_tau", None), ("at_tau_for_keep", best)):
        verdicts = study.below(scores, tau)
        yield name, figures(pairs, [verdicts[i] for i in where])


def _auc(labels: Sequence[bool], values: Sequence[float]) -> float | None:
    if len(set(labels)) < 2:
        return None
    metrics = require("sklearn.metrics", "scikit-learn", "eval")
    return round(float(metrics.roc_auc_score(labels, values)), 4)
