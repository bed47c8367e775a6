"""Restart, fingerprints and damage of stage directories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.execution import SerialExecutor
from sdrrl_nemo.data.execution.shard import Task
from sdrrl_nemo.data.execution.stage_runner import (
    Outcome,
    Row,
    Runner,
    Source,
    Stage,
    concatenate,
    remove_leftovers,
    shard_path,
)


class Double(Stage):
    name = "double"

    def __init__(self, factor: int = 2, shard_size: int | None = 3, fail_at: int | None = None) -> None:
        self.factor, self.shard_size, self.fail_at = factor, shard_size, fail_at
        self.seen: list[list[int]] = []

    def settings(self) -> Any:
        return self.factor

    def process(self, rows: list[Row]) -> Outcome:
        values = [r["n"] for r in rows]
        if self.fail_at in values:
            raise SdrrlError("stopped here")
        self.seen.append(values)
        kept = [{"n": n * self.factor} for n in values if n % 4]
        rejects = [{"n": n, "reason": "divisible by four"} for n in values if n % 4 == 0]
        return Outcome(kept, len(rows), len(kept), rejects)


def numbers(count: int, mark: str = "input") -> Source:
    return Source(mark, lambda: iter([{"n": i} for i in range(count)]), count)


def test_continues_after_the_last_whole_shard(tmp_path: Path) -> None:
    whole = Runner(tmp_path / "a").run(Double(), numbers(10))
    with pytest.raises(SdrrlError, match="stopped here"):
        Runner(tmp_path / "b").run(Double(fail_at=7), numbers(10))
    second = Double()
    result = Runner(tmp_path / "b").run(second, numbers(10))
    assert second.seen == [[6, 7, 8], [9]]
    assert list(result.source().read()) == list(whole.source().read()) == [{"n": 2 * i} for i in range(10) if i % 4]
    assert list(result.rejects()) == list(whole.rejects())
    statistics = result.statistics()
    assert (statistics["in"], statistics["out"], statistics["dropped"]) == (10, 7, {"divisible by four": 3})


def test_finished_stage_is_not_run_again_and_changes_start_anew(tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    runner.run(Double(), numbers(10))
    for stage, source in (
        (Double(3), numbers(10)),
        (Double(), numbers(10, "other")),
        (Double(shard_size=5), numbers(10)),
    ):
        runner.run(stage, source)
        assert stage.seen
    again = Double()
    runner.run(again, numbers(10))
    assert not again.seen


def test_damage_is_named(tmp_path: Path) -> None:
    result = Runner(tmp_path).run(Double(), numbers(10))
    path = shard_path(result.directory, 1, "rows")
    path.write_text(path.read_text().replace("10", "11"))
    with pytest.raises(SdrrlError, match=r"00001\.rows\.jsonl: file is missing or damaged; delete"):
        list(result.source().read())


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="3 in, 1 out, 0 dropped"):
        Outcome([], 3, 1).facts()


def test_sources(tmp_path: Path) -> None:
    odd = numbers(10).where("odd", lambda r: r["n"] % 2 == 1)
    both = concatenate([odd, numbers(2)])
    assert [r["n"] for r in both.read()] == [1, 3, 5, 7, 9, 0, 1]
    assert both.total == 7
    assert odd.fingerprint != numbers(10).fingerprint


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/.rows.jsonl.123.tmp").write_text("half a li")
    (tmp_path / "s/rows.jsonl").write_text("{}\n")
    remove_leftovers(tmp_path)
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["rows.jsonl"]


class Killed(SerialExecutor):
    """Ends as a pool does whose other worker is stopped in the middle of a write."""

    def map(self, task: Task, shards: Iterator[tuple[int, list[Row]]]) -> Iterator[tuple[int, dict[str, Any]]]:
        yield next(super().map(task, shards))
        (task.directory / ".00001.rows.jsonl.host-123.tmp").write_text("half a li")
        raise SdrrlError("no room to write")


def test_a_run_that_stops_leaves_finished_files_only(tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match="no room"):
        Runner(tmp_path, Killed()).run(Double(), numbers(10))
    assert {p.name for p in tmp_path.glob("double-*/*")} == {
        f"00000.{k}" for k in ("facts.json", "rejects.jsonl", "rows.jsonl")
    }
