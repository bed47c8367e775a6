"""What the data card says of the model's own answers: how many it finished, and how often Eq. 4 took one."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from sdrrl_nemo.report.card_facts import base_name

FINISHED, USED = "answers finished", "unfinished answers used"
ANSWERS = "answers "
"""Begins the notes of ``generate`` that count answers by how they ended."""
NO_Y_HAT = "no usable y_hat"


def about_answers(note: str) -> bool:
    """Whether a note of ``generate`` counts answers and not what was found in their texts."""
    return note.startswith(ANSWERS) or note == USED


def _counts(stats: dict[str, Any], stage: str, key: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for s in stats["stages"]:
        if base_name(s["name"]) == stage:
            found.update(s.get(key) or {})
    return found


def answer_counts(stats: dict[str, Any]) -> dict[str, Any] | None:
    """How the model's answers ended: ``finished``, ``unfinished`` as (why, how many), ``used`` of these all the same;
    None where no engine said so."""
    notes = _counts(stats, "generate", "notes")
    ended = {note: n for note, n in notes.items() if note.startswith(ANSWERS)}
    if not ended:
        return None
    unfinished = sorted((note.removeprefix(ANSWERS), n) for note, n in ended.items() if note != FINISHED)
    total = sum(ended.values())
    return {
        "total": total,
        "finished": notes[FINISHED],
        "share": notes[FINISHED] / total,
        "unfinished": unfinished,
        "used": notes[USED],
    }


def synth_draws(stats: dict[str, Any]) -> dict[str, Any] | None:
    """How often y and y_hat were taken (Eq. 4), and how many draws of y_hat were ``left_out`` for want of an answer;
    None where a method has but one of them."""
    notes, dropped = _counts(stats, "sample", "notes"), _counts(stats, "sample", "dropped")
    y, y_hat, left_out = notes["y"], notes["y_hat"], dropped[NO_Y_HAT]
    if not y or not y_hat:
        return None
    draws = y + y_hat + left_out
    return {
        "y": y,
        "y_hat": y_hat,
        "share": y_hat / (y + y_hat),
        "left_out": left_out,
        "drawn": (y_hat + left_out) / draws,
        "margin": margin(0.5, draws),
    }


def margin(p: float, n: int) -> float:
    """Half the width of the range in which an observed share of ``n`` draws with chance ``p`` lies 19 times of 20."""
    return 1.96 * math.sqrt(p * (1 - p) / n) if n else 0.0
