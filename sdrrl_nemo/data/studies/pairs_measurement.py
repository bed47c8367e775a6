"""All figures of a hand-judged set under one configuration: each judge, the judges together, tau, and the sweeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.pairs import pair_name
from sdrrl_nemo.data.studies.judged_pairs import JudgedPair
from sdrrl_nemo.data.studies.pairs_study import PairsStudy
from sdrrl_nemo.data.studies.rejections import Verdicts, report, together
from sdrrl_nemo.data.studies.threshold_sweeps import sweeps, taus

FILTERS, IDENTIFIED, ESTIMATOR, EVERYTHING = "all filters", "filters and language id", "estimator", "everything"
"""Judges of the report besides each filter and each identifier: sums of them, and the quality estimator."""


def measure_pairs(
    config: PreprocessConfig,
    pairs: Sequence[JudgedPair],
    identifiers: Sequence[str],
    keep: float,
    with_sweeps: bool = True,
) -> dict[str, Any]:
    """``judges`` (name -> `report`, each by itself), ``tau``, ``sweeps``, ``thresholds`` and the ``engines`` asked.

    ``identifiers`` are measured by themselves; in the sums the configured one speaks. Where the estimator is no judge
    of a pair of languages, its figures leave the pair out and the sums do without it. The sums list no false rejects:
    those of their parts are listed.
    """
    study = PairsStudy(config, pairs)
    filters = study.filters()
    scores = study.scores()
    all_filters = together(*filters.values())
    identified = together(all_filters, study.identifier())
    judges: dict[str, Verdicts] = {
        **filters,
        FILTERS: all_filters,
        **{name: study.identifier(name) for name in identifiers},
        IDENTIFIED: identified,
        ESTIMATOR: study.below(scores),
        EVERYTHING: together(identified, study.below(scores)),
    }
    reports = {name: report(pairs, verdicts) for name, verdicts in judges.items() if name != ESTIMATOR}
    if scores:
        reports[ESTIMATOR] = report([pairs[i] for i in scores], [judges[ESTIMATOR][i] for i in scores])
    for name in (FILTERS, IDENTIFIED, EVERYTHING):
        del reports[name]["false_rejects"]
    return {
        "judges": reports,
        "tau": taus(study, scores, keep),
        "sweeps": sweeps(study, identifiers, scores) if with_sweeps else [],
        "thresholds": {pair_name(pair): thresholds(own) for pair, own in study.configs.items()},
        "engines": study.identities(),
    }


def thresholds(config: PreprocessConfig) -> dict[str, Any]:
    """What decides in the configuration of one pair."""
    bounds = config.language_id
    return {
        "filters": [{"name": f.name, "options": f.options} for f in config.filters],
        "language_id": [bounds.engine.name, bounds.min_letters, bounds.min_probability],
        "quality": [config.quality.engine.name, config.quality.tau],
    }


def contents(pairs: Sequence[JudgedPair]) -> dict[str, Any]:
    """How many right and wrong translations the set has, by pair of languages, by fault and by kind of text."""
    return {
        "right": sum(p.right for p in pairs),
        "wrong": sum(not p.right for p in pairs),
        "right_by_pair": dict(Counter(pair_name(p.pair) for p in pairs if p.right)),
        "wrong_by_pair": dict(Counter(pair_name(p.pair) for p in pairs if not p.right)),
        "faults": dict(Counter(p.fault for p in pairs if p.fault)),
        "kinds": dict(Counter(p.kind for p in pairs)),
    }
