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


def waited_of(rows: Iterable[Mapping[str, Any]]) -> tuple[float | None, float]:
    """(mean seconds that a step waited for its micro-batches, their share of the steps' time). Rows of versions that
    did not write ``data_wait_s`` are left out; without any other the mean is None."""
    known = [(row["data_wait_s"], row["seconds"]) for row in rows if row.get("data_wait_s") is not None]
    if not known:
        return None, 0.0
    waited, seconds = (sum(column) for column in zip(*known, strict=True))
    return waited / len(known), waited / seconds if seconds else 0.0


def waiting_of(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """How long a step waited for its micro-batches, as a phrase; None where the rows do not say."""
    mean, share = waited_of(rows)
    return None if mean is None else f"{mean:.3g} s ({share:.1%} of its time)"


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
