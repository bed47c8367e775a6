"""Which of the paper's orderings hold here: the reference method against each other one, measure by measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdrrl_nemo.eval.reference import published
from sdrrl_nemo.study.config import MethodConfig
from sdrrl_nemo.study.table import BETTER, SAME

MODEL = "LLaMA-2-7B"
"""Whose tables (2 to 6) ours are put beside."""
HOLDS, REVERSED, TIE = "holds", "reversed", "tie"


def published_figure(measure: dict[str, Any], method: MethodConfig, target: str) -> float | None:
    """The paper's figure of the same benchmark, metric and direction: the target language's column, in Table 6 the
    average over its 14 languages; None where it prints none."""
    if not measure["published"] or not method.published:
        return None
    benchmark, metric, direction = measure["published"]
    language = "avg" if metric == "average" else target
    return published(MODEL, method.published, benchmark, metric, direction, language)


def orderings(
    measures: Sequence[dict[str, Any]], methods: Sequence[MethodConfig], reference: MethodConfig, target: str
) -> list[dict[str, Any]]:
    """One row for each published pair (reference, other) that both have figures for.

    ``holds``: ours has the paper's sign; ``reversed``: the other one; ``tie``: no difference on either side. ``beyond
    chance``: ours stays after Holm's correction; ``interval``: 95 % of ours, in the measure's units.
    """
    out = []
    for measure in measures:
        theirs = published_figure(measure, reference, target)
        for method in methods:
            figure = published_figure(measure, method, target)
            ours = measure["comparisons"].get(method.name)
            if method.name == reference.name or theirs is None or figure is None or ours is None:
                continue
            paper, here = theirs - figure, -ours["difference"]
            out.append(
                {
                    "measure": measure["id"],
                    "title": measure["title"],
                    "method": method.name,
                    "paper": paper,
                    "here": here,
                    "interval": [-limit for limit in reversed(ours["interval"])],
                    "result": TIE if paper == 0 or here == 0 else HOLDS if (paper > 0) == (here > 0) else REVERSED,
                    "beyond_chance": ours["verdict"] != SAME,
                    "p_holm": ours["p_holm"],
                }
            )
    return out


def counts(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many orderings hold or are reversed, and how many of them beyond chance."""
    out = {"pairs": len(rows)}
    for result in (HOLDS, REVERSED, TIE):
        chosen = [r for r in rows if r["result"] == result]
        out[result] = len(chosen)
        out[f"{result}_beyond_chance"] = sum(bool(r["beyond_chance"]) for r in chosen)
    return out


def against(measures: Sequence[dict[str, Any]], method: str, better: str = BETTER) -> dict[str, int]:
    """On how many measures ``method`` is clearly better than the reference, clearly worse, or neither."""
    verdicts = [m["comparisons"][method]["verdict"] for m in measures if method in m["comparisons"]]
    return {
        "better": verdicts.count(better),
        "worse": sum(v not in (better, SAME) for v in verdicts),
        "same": verdicts.count(SAME),
    }
