"""What a run's folder says of its losses and gradients; read by training at its end, by reports and cards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.fileio import read_json_object

IDENTITY_FILE = "identity.json"
"""In a run's folder: the settings that decide its result."""


def clipped_of(rows: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """(steps whose gradients were clipped, steps taken). Skipped steps are not taken; rows of versions that did not
    write ``clipped`` say nothing and are left out of both."""
    known = [bool(row["clipped"]) for row in rows if "clipped" in row and not row.get("skipped")]
    return sum(known), len(known)


def identity_of(run_dir: str | Path) -> dict[str, Any]:
    """What ``identity.json`` of a run says; empty where there is none."""
    path = Path(run_dir) / IDENTITY_FILE
    return read_json_object(path) if path.is_file() else {}


def is_mean_over_subsets(identity: Mapping[str, Any]) -> bool:
    """Whether the run's losses are Eq. 6 divided by the number of subsets; runs of earlier versions never divided."""
    return bool((identity.get("loss") or {}).get("normalise") == "mean")


def clipping_of(identity: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str | None:
    """How many steps were clipped, as a phrase; None where the rows do not say."""
    clipped, taken = clipped_of(rows)
    norm = (identity.get("optim") or {}).get("clip_grad")
    if not taken or not isinstance(norm, int | float):
        return None
    if norm == 0:
        return "never (optim.clip_grad: 0)"
    return f"at norm {norm:g}: {clipped} of {taken} steps ({clipped / taken:.0%})"
