"""The learning rate of each method, from short runs with the rates of one grid.

Each run trains on the method's own set and ends with the loss of Eq. 6 on the part of it that preprocessing held out
(packing.validation_fraction); the questions of the study's tests are in neither. The lowest loss wins, of equal ones
the smallest rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_jsonl
from sdrrl_nemo.study.config import StudyConfig, training_overrides

VALIDATION_SET = "validation"
DECIMALS = 4
"""Of a loss; two that are equal so far are a tie."""


@dataclass(frozen=True)
class Trial:
    """A short run: ``number`` (from 1) of the grid."""

    method: str
    number: int
    lr: float
    run_dir: Path

    @property
    def stage(self) -> str:
        """``choose_lr/sdrrl-2``."""
        return f"choose_lr/{self.method}-{self.number}"


def trials(config: StudyConfig, method: str) -> list[Trial]:
    """The runs that decide about a method, in the grid's order; none without a grid."""
    root = Path(config.work_dir) / "choose_lr"
    return [Trial(method, k, lr, root / f"{method}-{k}") for k, lr in enumerate(config.learning_rates.grid, 1)]


def overrides(config: StudyConfig, trial: Trial, data: Path) -> list[str]:
    """What differs from the study's training configuration, as ``key=value``."""
    steps = config.learning_rates.steps
    return [
        *training_overrides(config, data, trial.run_dir, 0, tracked=False),
        f"optim.lr={trial.lr}",
        f"trainer.max_steps={steps}",
        "trainer.save_every=-1",
        f"data.validation={VALIDATION_SET}",
        f"spikes.max_in_a_row={steps + 1}",  # a rate that is too high loses; it does not stop the study
    ]


def choice(config: StudyConfig, method: str, markers: Path) -> dict[str, Any] | None:
    """{"lr", "grid": [{"lr", "loss", "skipped_steps"}], "notes"} of a method once all its runs have their marker below
    ``markers``; None before, and without a grid. ``loss`` is None where it is not finite.

    SdrrlError when no rate gave a finite loss.
    """
    tried = trials(config, method)
    if not tried or not all((markers / f"{t.stage}.json").is_file() for t in tried):
        return None
    rows = [_outcome(t) for t in tried]
    sound = [r for r in rows if r["loss"] is not None]
    if not sound:
        raise SdrrlError(
            f"learning_rates.grid: no rate gave '{method}' a finite held-out loss; lower the rates, and remove "
            f"{markers}/choose_lr and {tried[0].run_dir.parent}"
        )
    best = min(r["loss"] for r in sound)
    chosen = min(r["lr"] for r in sound if r["loss"] == best)
    return {"lr": chosen, "grid": rows, "notes": _notes(rows, best, chosen)}


def _outcome(trial: Trial) -> dict[str, Any]:
    found = [row for _, row in read_jsonl(trial.run_dir / "validation.jsonl")]
    loss = float(found[-1]["loss"]) if found else math.nan
    skipped = sum(bool(row["skipped"]) for _, row in read_jsonl(trial.run_dir / "metrics.jsonl"))
    sound = round(loss, DECIMALS) if math.isfinite(loss) else None
    return {"lr": trial.lr, "loss": sound, "skipped_steps": skipped}


def _notes(rows: list[dict[str, Any]], best: float, chosen: float) -> list[str]:
    """What a reader of the choice must know: ties, failures, a best rate that has no neighbour on one side."""
    tied = [r["lr"] for r in rows if r["loss"] == best]
    failed = [r["lr"] for r in rows if r["loss"] is None]
    skipping = [r["lr"] for r in rows if r["loss"] is not None and r["skipped_steps"]]
    rates = [r["lr"] for r in rows]
    notes = [f"tie of {', '.join(map(str, tied))}: the smallest is taken"] if len(tied) > 1 else []
    notes += [f"no finite loss with {', '.join(map(str, failed))}"] if failed else []
    notes += [f"steps were skipped with {', '.join(map(str, skipping))}"] if skipping else []
    if len(rates) > 1 and chosen in (min(rates), max(rates)):
        notes.append(f"at the {'lower' if chosen == min(rates) else 'upper'} end of the grid")
    return notes
