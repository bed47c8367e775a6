"""Restartable stages: rows go through in fixed shards, every finished shard stays finished.

A stage's directory is named by a fingerprint of its settings, its engine and its input, so a changed configuration
never meets old results. A shard's rows depend on its input rows alone, and which rows make a shard on the input alone,
never on what an earlier run had finished; its files appear by rename, the shard's facts last, the stage's ``done.json``
after all shards. Killed at any moment, the next run therefore continues and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import canonical_json, read_json, read_jsonl, sha256_file, write_json, write_jsonl
from sdrrl_nemo.common.progress import progress

Row = dict[str, Any]
FORMAT = 1


@dataclass
class Outcome:
    """What a stage made of one shard.

    ``entered`` and ``left`` count what the stage counts (rows, translations, samples); ``rejects`` holds what it
    dropped, each with a ``reason``; ``dropped`` are counts by reason (of the rejects where not given); entered = left +
    dropped, always. ``notes`` are further counts worth showing.
    """

    rows: list[Row]
    entered: int
    left: int
    rejects: list[Row] = field(default_factory=list)
    dropped: Counter[str] | None = None
    notes: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict[str, Any]:
        """The counts as plain data; ValueError when they do not add up, which would be a mistake in the stage."""
        dropped = Counter(r["reason"] for r in self.rejects) if self.dropped is None else self.dropped
        if self.entered != self.left + dropped.total():
            raise ValueError(f"{self.entered} in, {self.left} out, {dropped.total()} dropped")
        return {"in": self.entered, "out": self.left, "dropped": dict(dropped), "notes": dict(self.notes)}


class Stage(ABC):
    """One step of the pipeline. ``process`` must depend on nothing but its rows and ``settings``."""

    name: str
    version: int = 1
    """Goes up whenever the same settings may give other rows."""
    shard_size: int | None = None
    """Rows processed together; None: all of them."""

    @abstractmethod
    def settings(self) -> Any:
        """Everything but the rows that the result depends on, engine identity included, as plain data."""

    @abstractmethod
    def process(self, rows: list[Row]) -> Outcome:
        """Work on one shard."""


@dataclass(frozen=True)
class Source:
    """Rows with a fingerprint: ``read`` starts from the first row each time it is called."""

    fingerprint: str
    read: Callable[[], Iterator[Row]]
    total: int

    def where(self, name: str, keep: Callable[[Row], bool]) -> Source:
        """The rows that ``keep`` says yes to; ``name`` names the choice in the fingerprint."""
        total = sum(1 for row in self.read() if keep(row))
        return Source(fingerprint([self.fingerprint, name]), lambda: (r for r in self.read() if keep(r)), total)


NO_INPUT = Source("none", lambda: iter([{}]), 1)
"""Input of a stage that reads a file of its own: one empty row."""


def concatenate(sources: Iterable[Source]) -> Source:
    """All rows of the sources, one after the other."""
    parts = list(sources)
    return Source(
        fingerprint([s.fingerprint for s in parts]),
        lambda: (row for s in parts for row in s.read()),
        sum(s.total for s in parts),
    )


def fingerprint(value: Any) -> str:
    """16 hex digits over plain data."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StageResult:
    """A finished stage: where its rows and rejects lie, and its counts."""

    name: str
    directory: Path
    fingerprint: str
    facts: dict[str, Any]

    def source(self) -> Source:
        """The rows, as input of another stage."""
        return Source(
            self.fingerprint, lambda: self._read("rows"), sum(s["rows"]["count"] for s in self.facts["shards"])
        )

    def rejects(self) -> Iterator[Row]:
        """What the stage dropped, with the stage's name."""
        return ({"stage": self.name, **row} for row in self._read("rejects"))

    def _read(self, kind: str) -> Iterator[Row]:
        for number, shard in enumerate(self.facts["shards"]):
            path = shard_path(self.directory, number, kind)
            if not path.is_file() or sha256_file(path) != shard[kind]["sha256"]:
                raise SdrrlError(f"{path}: file is missing or damaged; delete {self.directory} and run again")
            yield from (row for _, row in read_jsonl(path))

    def statistics(self) -> dict[str, Any]:
        """``{"name", "in", "out", "dropped", "notes", "seconds"}`` summed over the shards."""
        shards = self.facts["shards"]
        dropped: Counter[str] = Counter()
        notes: Counter[str] = Counter()
        for shard in shards:
            dropped.update(shard["dropped"])
            notes.update(shard["notes"])
        return {
            "name": self.name,
            "in": sum(s["in"] for s in shards),
            "out": sum(s["out"] for s in shards),
            "dropped": dict(sorted(dropped.items())),
            "notes": dict(sorted(notes.items())),
            "seconds": round(sum(s["seconds"] for s in shards), 2),
        }


def shard_path(directory: Path, number: int, kind: str) -> Path:
    """File of one shard; ``kind`` is rows, rejects or facts."""
    return directory / (f"{number:05d}.{kind}.json" + ("" if kind == "facts" else "l"))


def remove_leftovers(directory: Path) -> None:
    """Delete temporary files that a killed run left under ``directory``; only under the run's lock."""
    for path in directory.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


class Runner:
    """Runs stages under ``root`` (one directory each) and remembers them in order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.results: list[StageResult] = []

    def run(self, stage: Stage, source: Source) -> StageResult:
        """The finished stage, continuing where an earlier run stopped."""
        about = {"name": stage.name, "version": stage.version, "shard": stage.shard_size}
        settings = {**about, "settings": stage.settings()}
        mark = fingerprint({"format": FORMAT, "stage": settings, "input": source.fingerprint})
        directory = self.root / f"{stage.name}-{mark}"
        done = directory / "done.json"
        facts = read_json(done) if done.is_file() else self._work(stage, source, directory, settings)
        result = StageResult(stage.name, directory, mark, facts)
        self.results.append(result)
        return result

    def _work(self, stage: Stage, source: Source, directory: Path, settings: Any) -> dict[str, Any]:
        directory.mkdir(parents=True, exist_ok=True)
        shards = []
        with progress(None, stage.name, total=source.total) as bar:
            for number, rows in enumerate(_shards(source, stage.shard_size)):
                path = shard_path(directory, number, "facts")
                shards.append(read_json(path) if path.is_file() else _work_shard(stage, rows, directory, number))
                bar.update(len(rows))
        facts = {"settings": settings, "shards": shards}
        write_json(directory / "done.json", facts)
        return facts


def _shards(source: Source, size: int | None) -> Iterator[list[Row]]:
    rows = source.read()
    while shard := list(rows if size is None else islice(rows, size)):
        yield shard


def _work_shard(stage: Stage, rows: list[Row], directory: Path, number: int) -> dict[str, Any]:
    begin = time.perf_counter()
    outcome = stage.process(rows)
    facts = outcome.facts()
    for kind, content in (("rows", outcome.rows), ("rejects", outcome.rejects)):
        path = shard_path(directory, number, kind)
        write_jsonl(path, content)
        facts[kind] = {"count": len(content), "sha256": sha256_file(path)}
    facts["seconds"] = time.perf_counter() - begin
    write_json(shard_path(directory, number, "facts"), facts)
    return facts
