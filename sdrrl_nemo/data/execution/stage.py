"""What a step of the pipeline is: rows of one type in, an Outcome with rows of another type out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

Row = Mapping[str, Any]
"""Any row. Running stages looks into none; a stage says which it takes and gives (``sdrrl_nemo/data/rows.py``)."""

In = TypeVar("In", bound=Row)
Out = TypeVar("Out", bound=Row)


@dataclass
class Outcome(Generic[Out]):
    """What a stage made of one shard.

    ``entered`` and ``left`` count what the stage counts (rows, translations, samples); ``rejects`` holds what it
    dropped, each with a ``reason``; ``dropped`` are counts by reason (of the rejects where not given); entered = left +
    dropped, always. ``notes`` are further counts worth showing.
    """

    rows: list[Out]
    entered: int
    left: int
    rejects: Sequence[Row] = field(default_factory=list)
    dropped: Counter[str] | None = None
    notes: Counter[str] = field(default_factory=Counter)

    def reasons(self) -> Counter[str]:
        """How many were dropped, by reason."""
        return Counter(r["reason"] for r in self.rejects) if self.dropped is None else self.dropped

    def facts(self) -> dict[str, Any]:
        """The counts as plain data; ValueError when they do not add up, which would be a mistake in the stage."""
        dropped = self.reasons()
        if self.entered != self.left + dropped.total():
            raise ValueError(f"{self.entered} in, {self.left} out, {dropped.total()} dropped")
        return {"in": self.entered, "out": self.left, "dropped": dict(dropped), "notes": dict(self.notes)}

    def __add__(self, other: Outcome[Out]) -> Outcome[Out]:
        """One outcome for the rows of both, in order."""
        return Outcome(
            self.rows + other.rows,
            self.entered + other.entered,
            self.left + other.left,
            [*self.rejects, *other.rejects],
            self.reasons() + other.reasons(),
            self.notes + other.notes,
        )


class Stage(ABC, Generic[In, Out]):
    """One step of the pipeline: it takes rows ``In`` and gives rows ``Out``.

    ``process`` must depend on nothing but its rows and ``settings``.

    A stage is pickled before it has worked on anything and unpickled by each worker, which keeps it, and the engines it
    loads on first use, from shard to shard.
    """

    name: str
    version: int = 1
    """Goes up whenever the same settings may give other rows."""
    shard_size: int | None = None
    """Rows processed together; None: all of them, in the process that drives the run."""

    @abstractmethod
    def settings(self) -> Any:
        """Everything but the rows that the result depends on, engine identity included, as plain data."""

    @abstractmethod
    def process(self, rows: list[In]) -> Outcome[Out]:
        """Work on one shard."""


class StreamStage(Stage[In, Out]):
    """A step that needs all rows at once and more room than memory has: it reads a stream and yields parts.

    Runs in the process that drives the run; stopped, it begins again from its first row.
    """

    @abstractmethod
    def stream(self, rows: Iterator[In], workspace: Path) -> Iterator[Outcome[Out]]:
        """Outcomes of a bounded number of rows each, in final order; ``workspace``: an empty directory for spills."""

    def process(self, rows: list[In]) -> Outcome[Out]:
        """All at once, for rows that are few."""
        nothing: Outcome[Out] = Outcome([], 0, 0)
        with TemporaryDirectory() as workspace:
            return sum(self.stream(iter(rows), Path(workspace)), start=nothing)
