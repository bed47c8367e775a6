"""m-ArenaHard (Dang et al. 2024): a judge compares answers with a baseline's, each pair in both orders.

Verdicts are read and weighed as ``gen_judgment.py`` and ``show_result.py`` of lmarena/arena-hard-auto do, commit
196f6b8: of the labels ``[[A>B]]`` the last one counts, "much better" weighs three times, a tie is half a win, and a
pair with an unreadable verdict in either order is left out.

``win_rate`` gives each question the same weight. Tie rule: a question is won (1) or lost (0) where both orders say so
or one says so and the other calls a tie; where the orders contradict each other, or both call a tie, it is a tie (0.5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LABELS = (re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]"))
STRONG = 3
"""How many times "much better" counts."""
_OF_A = {
    "A>>B": (1.0, STRONG), "A>B": (1.0, 1), "A=B": (0.5, 1), "A<B": (0.0, 1), "A<<B": (0.0, STRONG),
    "B>>A": (0.0, STRONG), "B>A": (0.0, 1), "B=A": (0.5, 1), "B<A": (1.0, 1), "B<<A": (1.0, STRONG),
}  # fmt: skip
"""Verdict -> (points of A, how many times it counts)."""


@dataclass(frozen=True)
class Battle:
    """``outcome``: 1 won, 0.5 tie, 0 lost against the baseline. ``points`` of ``weight``: the official count."""

    outcome: float
    points: float
    weight: int


def read_verdict(reply: str) -> str | None:
    """The last label of a judge's reply, ``A>B`` and so on; None where there is none that means something."""
    for pattern in _LABELS:
        if found := pattern.findall(reply.upper()):
            return found[-1] if found[-1] in _OF_A else None
    return None


def score_item(baseline_first: str | None, model_first: str | None) -> Battle | None:
    """One question from its two verdicts: the baseline's answer shown as A, then the model's; None leaves it out."""
    if baseline_first is None or model_first is None:
        return None
    theirs, weight = _OF_A[baseline_first]
    ours, other_weight = _OF_A[model_first]
    total = ours + (1.0 - theirs)
    outcome = 0.5 if total == 1.0 else float(total > 1.0)
    return Battle(outcome, ours * other_weight + (1.0 - theirs) * weight, weight + other_weight)


def win_rate(items: Sequence[Battle]) -> float | None:
    """Mean outcome, 0 to 1; None without a battle."""
    return sum(x.outcome for x in items) / len(items) if items else None


def official_score(items: Sequence[Battle]) -> float | None:
    """Arena-Hard's own score, 0 to 1: points over weights; None without a battle."""
    return sum(x.points for x in items) / sum(x.weight for x in items) if items else None
