"""Measures of all runs -> one table: mean and spread over seeds, comparison of every method with the reference one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.study.aggregate import Array, value
from sdrrl_nemo.study.stats import Comparison, average, compare, holm, mean_and_spread, resample_counts

BETTER, WORSE, SAME = "better", "worse", "no clear difference"

COMPOSITES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "nlu.target": ("Comprehension, target language", "target", ("belebele.{t}",)),
    "nlu.english": ("Comprehension, source language", "english", ("belebele.{s}",)),
    "nlg.target": (
        "Generation, target language",
        "target",
        ("flores.{s}-{t}.bleu", "xlsum.{t}.rougeL", "mkqa.{t}"),
    ),
    "nlg.english": (
        "Generation, source language",
        "english",
        ("flores.{t}-{s}.bleu", "xlsum.{s}.rougeL", "mkqa.{s}"),
    ),
}
"""Table 6's averages: id -> title, direction, measures whose mean it is ({s}, {t}: source and target language)."""


@dataclass(frozen=True)
class Scores:
    """Measures of one run, as measures.json has them."""

    method: str
    number: int
    measures: Mapping[str, Mapping[str, Any]]


@dataclass
class Row:
    """One line of the table while it is made."""

    about: dict[str, Any]
    values: dict[str, dict[str, Any]]
    comparisons: dict[str, Comparison]


def table(
    scores: Sequence[Scores], reference: str, languages: tuple[str, str], seed: int, resamples: int, level: float
) -> dict[str, Any]:
    """``measures`` and ``averages`` (Table 6's), and how many tests Holm's correction is over.

    ``languages``: source and target. Each measure: values by method {"mean", "sd", "runs"}, and by method the
    comparison {"difference", "interval", "p", "p_holm", "verdict"} with the reference method.
    """
    by_method: dict[str, list[Scores]] = {}
    for s in sorted(scores, key=lambda s: s.number):
        by_method.setdefault(s.method, []).append(s)
    first = scores[0].measures
    rows = {m: _row(m, by_method, reference, seed, resamples) for m in first}
    averages = _averages(rows, by_method, languages)
    tested = [(row, m, c) for row in (*rows.values(), *averages.values()) for m, c in row.comparisons.items()]
    adjusted = holm([c.p for _, _, c in tested])
    out: dict[int, dict[str, Any]] = {}
    for (row, method, c), p in zip(tested, adjusted, strict=True):
        out.setdefault(id(row), {})[method] = {
            "difference": c.difference,
            "interval": list(c.interval),
            "p": c.p,
            "p_holm": p,
            "verdict": _verdict(c.difference, p, row.about["better"], level),
        }

    def finished(row: Row) -> dict[str, Any]:
        return {**row.about, "values": row.values, "comparisons": out.get(id(row), {})}

    return {
        "measures": [finished(r) for r in rows.values()],
        "averages": [finished(r) for r in averages.values()],
        "tests": len(tested),
    }


def _verdict(difference: float, p: float, better: str, level: float) -> str:
    if p >= level or difference == 0:
        return SAME
    return BETTER if (difference > 0) == (better == "higher") else WORSE


def _row(measure: str, by_method: dict[str, list[Scores]], reference: str, seed: int, resamples: int) -> Row:
    any_run = next(iter(by_method.values()))[0].measures[measure]
    keys, kind = any_run["keys"], any_run["kind"]
    items = {method: [_items(s, measure, keys) for s in runs] for method, runs in by_method.items()}
    about = {k: any_run[k] for k in ("id", "group", "title", "language", "unit", "better", "kind", "published")}
    values = {}
    for method, runs in items.items():
        found = [value(kind, x) for x in runs]
        values[method] = _spread([s.number for s in by_method[method]], found)
    comparisons = {}
    if reference in items and keys:
        counts = resample_counts(seed, measure, len(keys), resamples)
        for method, own in items.items():
            if method != reference and (c := compare(kind, own, items[reference], counts)) is not None:
                comparisons[method] = c
    return Row({**about, "items": len(keys)}, values, comparisons)


def _spread(numbers: Sequence[int], found: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation over the runs that have a value."""
    valued = [v for v in found if np.isfinite(v)]
    mean, sd = mean_and_spread(valued) if valued else (None, None)
    runs = {str(n): v if np.isfinite(v) else None for n, v in zip(numbers, found, strict=True)}
    return {"mean": mean, "sd": sd, "runs": runs}


def _items(s: Scores, measure: str, keys: list[str]) -> Array:
    found = s.measures.get(measure)
    if found is None or found["keys"] != keys:
        raise SdrrlError(
            f"{s.method}-{s.number}: its measure '{measure}' has other items than the other runs'; remove its folder "
            "under scores/ and its marker under done/measure/, and run the study again"
        )
    return np.asarray(found["items"], np.float64)


def _averages(rows: dict[str, Row], by_method: dict[str, list[Scores]], languages: tuple[str, str]) -> dict[str, Row]:
    """Table 6's averages of the measures that are there in full."""
    out = {}
    for name, (title, direction, parts) in COMPOSITES.items():
        ids = [p.format(s=languages[0], t=languages[1]) for p in parts]
        if not all(i in rows for i in ids):
            continue
        values = {}
        for method, runs in by_method.items():
            per_run = [
                float(np.mean([np.nan if (v := rows[i].values[method]["runs"][str(s.number)]) is None else v
                               for i in ids]))
                for s in runs
            ]  # fmt: skip
            values[method] = _spread([s.number for s in runs], per_run)
        comparisons = {}
        for method in rows[ids[0]].comparisons:
            found = [rows[i].comparisons[method] for i in ids if method in rows[i].comparisons]
            if len(found) == len(ids) and (c := average(found)) is not None:
                comparisons[method] = c
        about = {
            "id": name,
            "group": "Averages",
            "title": title,
            "language": languages[1] if direction == "target" else languages[0],
            "unit": "%",
            "better": "higher",
            "kind": "average",
            "parts": ids,
            "published": (name.split(".", maxsplit=1)[0].upper(), "average", direction),
            "items": sum(rows[i].about["items"] for i in ids),
        }
        out[name] = Row(about, values, comparisons)
    return out
