"""What ``--dry-run`` prints: rows, calls, hours and bytes of a run, and which of its stages are finished already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from sdrrl_nemo.data.chosen_engines import Engines
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.execution import SerialExecutor, Stage
from sdrrl_nemo.data.execution.stage import In, Out
from sdrrl_nemo.data.execution.stage_runner import Runner, Source, StageResult
from sdrrl_nemo.data.preflight.forecast import RATES, Forecast, gigabytes
from sdrrl_nemo.data.steps import Steps
from sdrrl_nemo.data.summary import console_to, new_table


class PlannedRunner(Runner):
    """Names the stages of a run and runs none: a stage that is not finished gives no rows.

    Works because a stage's fingerprint follows from its settings and its input's fingerprint, never from rows.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, SerialExecutor())
        self.states: dict[str, str] = {}

    def run(self, stage: Stage[In, Out], source: Source[In]) -> StageResult[Out]:
        result = super().run(stage, source)
        done = (result.directory / "done.json").is_file()
        shards = sum(1 for _ in result.directory.glob("[0-9]*.facts.json")) if result.directory.is_dir() else 0
        self.states[stage.name] = "done" if done else f"{shards} shards done" if shards else "to do"
        return result

    def _work(self, stage: Stage[Any, Any], source: Source[Any], directory: Path, settings: Any) -> dict[str, Any]:
        return {"settings": settings, "shards": []}


class PlannedSteps(Steps):
    """The steps of a run as `PlannedRunner` sees them."""

    def __init__(self, config: PreprocessConfig, engines: Engines) -> None:
        super().__init__(config, engines, SerialExecutor())
        self.runner: PlannedRunner = PlannedRunner(Path(config.output_dir) / "stages")

    def _require_samples(self, tokens: StageResult[Any]) -> None:
        """There are none yet."""


def stage_states(config: PreprocessConfig, engines: Engines, walk: Callable[[Steps], Any]) -> dict[str, str]:
    """Stage -> ``done``, how many of its shards are, or ``to do``; ``walk`` goes through the steps of a run."""
    steps = PlannedSteps(config, engines)
    walk(steps)
    return steps.runner.states


def print_forecast(found: Forecast, file: TextIO | None = None) -> None:
    """Calls of each engine with hours at the stated rates, samples and bytes."""
    out = console_to(file)
    rows = new_table("Plan", [("role", False), ("engine", False), ("for", False), ("calls", True), ("hours", True)])
    for work in found.work:
        hours = work.hours()
        span = f"{hours[0]:.2f} - {hours[1]:.2f}" if hours else "no rate known"
        rows.add_row(work.role, work.name, work.scope, f"{work.calls:,}", span)
    out.print(rows)
    for source, questions in found.rows.items():
        out.print(f"{questions:,} questions for training in {source}.")
    out.print(f"At most {found.samples:,} samples; about {gigabytes(found.disk_bytes)} on disk.")
    spans = [hours for work in found.work if (hours := work.hours())]
    out.print(f"Engines, one copy each: {sum(s[0] for s in spans):.2f} to {sum(s[1] for s in spans):.2f} hours.")
    for name in dict.fromkeys(work.name for work in found.work if work.name in RATES):
        rate = RATES[name]
        out.print(f"Rate of {name}: {rate.low:g} to {rate.high:g} calls a second ({rate.why}).", soft_wrap=True)


def print_states(states: dict[str, str], file: TextIO | None = None) -> None:
    """Every stage of the run with its state."""
    rows = new_table("Stages", [("stage", False), ("state", False)])
    for name, state in states.items():
        rows.add_row(name, state)
    console_to(file).print(rows)
