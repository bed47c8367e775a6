"""Arithmetic over judged translations: what a judge rejected rightly and wrongly, for the whole set and its parts.

A judge's verdict on a pair is the reason for which it rejects it, or None when it lets the pair pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sdrrl_nemo.data.pairs import pair_name
from sdrrl_nemo.data.studies.judged_pairs import JudgedPair

Verdicts = Sequence[str | None]
PartOf = Callable[[JudgedPair], str | None]
"""Names the part that a pair belongs to; None: none."""


def figures(pairs: Sequence[JudgedPair], verdicts: Verdicts) -> dict[str, Any]:
    """Counts of right and wrong pairs and of those rejected, and four shares (None where nothing is to be divided).

    ``false_rejects``: of the right pairs; ``wrong_accepted``: of the wrong ones; ``precision``: the wrong ones among
    the rejected; ``recall``: the rejected ones among the wrong.
    """
    right = [reason is not None for pair, reason in zip(pairs, verdicts, strict=True) if pair.right]
    wrong = [reason is not None for pair, reason in zip(pairs, verdicts, strict=True) if not pair.right]
    return {
        "right": len(right),
        "right_rejected": sum(right),
        "wrong": len(wrong),
        "wrong_rejected": sum(wrong),
        "false_rejects": _share(sum(right), len(right)),
        "wrong_accepted": _share(len(wrong) - sum(wrong), len(wrong)),
        "precision": _share(sum(wrong), sum(wrong) + sum(right)),
        "recall": _share(sum(wrong), len(wrong)),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def report(pairs: Sequence[JudgedPair], verdicts: Verdicts) -> dict[str, Any]:
    """`figures` of all pairs and by language pair; [pairs, rejected] by fault (wrong ones) and by kind of text (right
    ones); and every right pair that was rejected."""
    return {
        "all": figures(pairs, verdicts),
        "by_pair": _parted(pairs, verdicts, lambda p: pair_name(p.pair)),
        "by_fault": _counted(pairs, verdicts, lambda p: p.fault),
        "by_kind": _counted(pairs, verdicts, lambda p: p.kind if p.right else None),
        "false_rejects": [
            {"pair": pair_name(p.pair), "target": p.text.target, "reason": reason}
            for p, reason in zip(pairs, verdicts, strict=True)
            if p.right and reason is not None
        ],
    }


def _counted(pairs: Sequence[JudgedPair], verdicts: Verdicts, part_of: PartOf) -> dict[str, list[int]]:
    parts = _parts(pairs, part_of)
    return {name: [len(where), sum(verdicts[i] is not None for i in where)] for name, where in parts.items()}


def _parted(pairs: Sequence[JudgedPair], verdicts: Verdicts, part_of: PartOf) -> dict[str, dict[str, Any]]:
    return {
        name: figures([pairs[i] for i in where], [verdicts[i] for i in where])
        for name, where in _parts(pairs, part_of).items()
    }


def _parts(pairs: Sequence[JudgedPair], part_of: PartOf) -> dict[str, list[int]]:
    parts: dict[str, list[int]] = {}
    for index, pair in enumerate(pairs):
        name = part_of(pair)
        if name is not None:
            parts.setdefault(name, []).append(index)
    return parts


def together(*judges: Verdicts) -> list[str | None]:
    """The verdicts of several judges one after another: the first that rejects a pair gives the reason."""
    return [next((reason for reason in reasons if reason is not None), None) for reasons in zip(*judges, strict=True)]
