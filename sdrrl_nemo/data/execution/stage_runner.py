"""Restartable stages: rows go through in fixed shards, every finished shard stays finished.

A stage's directory is named by a fingerprint of its settings, its engine and its input, so a changed configuration
never meets old results. A shard's rows depend on its input rows alone, and which rows make a shard on the input alone,
never on what an earlier run had finished; its files appear by rename, the shard's facts last, the stage's ``done.json``
after all shards. Killed at any moment, the next run therefore continues and ends with the same bytes, whoever works on
the shards (``sdrrl_nemo/data/execution``).
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import canonical_json, read_json, read_jsonl, sha256_file, write_json
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.data.execution import ExecutionConfig, Executor, Outcome, Row, SerialExecutor, Stage, StreamStage, Task
from sdrrl_nemo.data.execution.config import allowed_failures
from sdrrl_nemo.data.execution.shard import FAILED, shard_path, too_many_failures, write_shard
from sdrrl_nemo.data.execution.stage import In, Out
from sdrrl_nemo.data.rows import NoRow

__all__ = [
    "NO_INPUT",
    "Outcome",
    "Row",
    "Runner",
    "Source",
    "Stage",
    "StageResult",
    "StreamStage",
    "concatenate",
    "fingerprint",
    "remove_leftovers",
    "shard_path",
]

FORMAT = 2


class Source(Generic[Out]):
    """Rows of one type with a fingerprint: ``read`` starts from the first row each time it is called.

    ``total`` may be a function; it is called when the number of rows is first asked for.
    """

    def __init__(self, fingerprint: str, read: Callable[[], Iterator[Out]], total: int | Callable[[], int]) -> None:
        self.fingerprint, self.read = fingerprint, read
        self._total = total

    @property
    def total(self) -> int:
        """Number of rows."""
        if not isinstance(self._total, int):
            self._total = self._total()
        return self._total

    def where(self, name: str, keep: Callable[[Out], bool]) -> Source[Out]:
        """The rows that ``keep`` says yes to; ``name`` names the choice in the fingerprint."""

        # The fingerprint cannot look into a function, so two choices of one source must not share a name.
        def chosen() -> Iterator[Out]:
            return (row for row in self.read() if keep(row))

        return Source(fingerprint([self.fingerprint, name]), chosen, lambda: sum(1 for _ in chosen()))


NO_INPUT: Source[NoRow] = Source("none", lambda: iter([NoRow()]), 1)
"""Input of a stage that reads a file of its own: one empty row."""


def concatenate(sources: Iterable[Source[Out]]) -> Source[Out]:
    """All rows of the sources, one after the other."""
    parts = list(sources)
    return Source(
        fingerprint([s.fingerprint for s in parts]),
        lambda: (row for s in parts for row in s.read()),
        lambda: sum(s.total for s in parts),
    )


def fingerprint(value: Any) -> str:
    """16 hex digits over plain data."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StageResult(Generic[Out]):
    """A finished stage: where its rows and rejects lie, and its counts."""

    name: str
    directory: Path
    fingerprint: str
    facts: dict[str, Any]

    def source(self) -> Source[Out]:
        """The rows, as input of another stage. They are read from disk again each time, never kept in memory."""
        return Source(
            self.fingerprint, lambda: self._read("rows"), sum(s["rows"]["count"] for s in self.facts["shards"])
        )

    def rejects(self) -> Iterator[Mapping[str, Any]]:
        """What the stage dropped, with the stage's name."""
        return ({"stage": self.name, **row} for row in self._read("rejects"))

    def _read(self, kind: str) -> Iterator[Any]:
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


def remove_leftovers(directory: Path) -> None:
    """Delete temporary files that a killed run left under ``directory``; only under the run's lock."""
    for path in directory.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


class Runner:
    """Runs stages under ``root`` (one directory each) and remembers them in order.

    ``executor`` works on the shards; None: this process, one after the other.
    """

    def __init__(self, root: Path, executor: Executor | None = None, execution: ExecutionConfig | None = None) -> None:
        self.root = root
        self.executor = executor or SerialExecutor()
        self.execution = execution or ExecutionConfig()
        self.results: list[StageResult[Any]] = []

    def run(self, stage: Stage[In, Out], source: Source[In]) -> StageResult[Out]:
        """Run a stage on rows of the type that it takes, continuing where an earlier run stopped."""
        # The input is named by its own fingerprint, not read: a finished chain is recognised without opening a file.
        about = {"name": stage.name, "version": stage.version, "shard": stage.shard_size}
        settings = {**about, "settings": stage.settings()}
        mark = fingerprint({"format": FORMAT, "stage": settings, "input": source.fingerprint})
        directory = self.root / f"{stage.name}-{mark}"
        done = directory / "done.json"
        facts = read_json(done) if done.is_file() else self._work(stage, source, directory, settings)
        # A finished stage too is held to max_failed_fraction, which may have been lowered since.
        self._check_failed(stage, directory, dict(enumerate(facts["shards"])), sum(s["read"] for s in facts["shards"]))
        result: StageResult[Out] = StageResult(stage.name, directory, mark, facts)
        self.results.append(result)
        return result

    def _work(self, stage: Stage[Any, Any], source: Source[Any], directory: Path, settings: Any) -> dict[str, Any]:
        directory.mkdir(parents=True, exist_ok=True)
        with progress(None, stage.name, total=source.total) as bar:
            work = self._stream if isinstance(stage, StreamStage) else self._shards
            try:
                shards = work(stage, source, directory, bar.update)  # type: ignore[arg-type]
            except BaseException:
                remove_leftovers(directory)  # workers are killed in the middle of a write; a full disk needs its room
                raise
        facts = {"settings": settings, "shards": shards}
        write_json(directory / "done.json", facts)
        return facts

    def _shards(
        self, stage: Stage[Any, Any], source: Source[Any], directory: Path, tick: Callable[[int], Any]
    ) -> list[Any]:
        finished: dict[int, dict[str, Any]] = {}
        task = self._task(stage, directory, source.total)

        def unfinished() -> Iterator[tuple[int, list[Row]]]:
            for number, rows in enumerate(_cut(source, stage.shard_size)):
                path = shard_path(directory, number, "facts")
                if path.is_file():  # the facts are written last, so rows and rejects are there too
                    finished[number] = read_json(path)
                    tick(len(rows))
                else:
                    yield number, rows

        # A stage without shards reads what it needs by itself, once: no worker is worth starting for it.
        executor = SerialExecutor() if stage.shard_size is None else self.executor
        failed = 0
        for number, facts in executor.map(task, unfinished()):
            finished[number] = facts
            tick(facts["read"])
            # Shards come back in any order; the run stops as soon as the sum is too large, not at the end.
            failed += facts["failed"]
            if failed > task.allowed:
                self._check_failed(stage, directory, finished, source.total)
        return [finished[number] for number in sorted(finished)]

    def _stream(
        self, stage: StreamStage[Any, Any], source: Source[Any], directory: Path, tick: Callable[[int], Any]
    ) -> list[Any]:
        # What a killed run left here says nothing of how far it came, so a stream stage begins again.
        workspace = directory / "workspace"
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir()

        def counted() -> Iterator[Row]:
            for row in source.read():
                yield row
                tick(1)

        shards = []
        begin = time.perf_counter()
        for number, outcome in enumerate(stage.stream(counted(), workspace)):
            shards.append(write_shard(directory, number, outcome, read=outcome.entered, failed=0, begin=begin))
            begin = time.perf_counter()
        shutil.rmtree(workspace)
        return shards

    def _task(self, stage: Stage[Any, Any], directory: Path, rows: int) -> Task:
        return Task(stage, directory, allowed_failures(self.execution, rows), self.execution.retries)

    def _check_failed(self, stage: Stage[Any, Any], directory: Path, shards: dict[int, Any], rows: int) -> None:
        """SdrrlError when more rows failed than may; of a finished stage too, which another setting may have let by."""
        task, failed = self._task(stage, directory, rows), sum(s["failed"] for s in shards.values())
        if failed > task.allowed:
            numbers = (n for n, s in sorted(shards.items()) if s["failed"])
            rejects = (r for n in numbers for _, r in read_jsonl(shard_path(directory, n, "rejects")))
            last = [r for r in rejects if r["reason"].startswith(FAILED)][-1]
            raise too_many_failures(task, failed, last)


def _cut(source: Source[Any], size: int | None) -> Iterator[list[Row]]:
    rows = source.read()
    while shard := list(rows if size is None else islice(rows, size)):
        yield shard
