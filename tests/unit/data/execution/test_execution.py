"""Stages over workers: same bytes whoever works, workers that die, rows that fail, disks that fill up."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.execution import (
    ExecutionConfig,
    Executor,
    SerialExecutor,
    StageExecution,
    make_executor,
    resources_of,
    validate_execution,
)
from sdrrl_nemo.data.execution.isolation import Killers, Suspect, note_path
from sdrrl_nemo.data.execution.stage_runner import Runner, Source, StageResult
from sdrrl_nemo.data.execution.worker import pack
from tests.unit.data.execution.flaky_stages import Flaky, Large

TWO = ExecutionConfig(workers=2, retries=2)


def numbers(count: int) -> Source:
    return Source("numbers", lambda: iter([{"key": f"{i:04d}", "n": i} for i in range(count)]), count)


def run(
    root: Path, stage: Any, config: ExecutionConfig | None = None, executor: Executor | None = None, rows: int = 30
) -> StageResult:
    config = config or ExecutionConfig()
    if executor is not None:
        return Runner(root, executor, config).run(stage, numbers(rows))
    with closing(make_executor(config)) as own:
        return Runner(root, own, config).run(stage, numbers(rows))


def contents(root: Path) -> dict[str, bytes]:
    """The rows and rejects of every shard; the facts hold seconds."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.jsonl"))}


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    """Two processes for all tests that do not end them: starting some takes longer than most tests."""
    with closing(make_executor(TWO)) as executor:
        yield executor


def test_same_bytes_from_one_process_and_from_two(tmp_path: Path, pool: Executor) -> None:
    one = run(tmp_path / "one", Flaky())
    two = run(tmp_path / "two", Flaky(), TWO, pool)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert [s["rows"] for s in one.facts["shards"]] == [s["rows"] for s in two.facts["shards"]]
    assert [r["n"] for r in two.source().read()] == [3 * n for n in range(30) if n % 5]


def test_a_dead_worker_loses_nothing(tmp_path: Path, pool: Executor) -> None:
    run(tmp_path / "whole", Flaky())
    (tmp_path / "seen").mkdir()
    stage = Flaky({5: "kill once", 17: "kill once", 29: "kill once"})
    stage.folder = str(tmp_path / "seen")
    run(tmp_path / "killed", stage, TWO, pool)
    assert len(list((tmp_path / "seen").iterdir())) == 3
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("trouble", ["kill", "segfault"])
def test_a_row_that_kills_every_worker_is_found_and_rejected(tmp_path: Path, pool: Executor, trouble: str) -> None:
    stage = Flaky({17: trouble, 22: trouble}, shard_size=10)
    result = run(tmp_path / "killed", stage, replace(TWO, max_failed_fraction=0.1), pool)
    assert [r["n"] // 3 for r in result.source().read()] == [n for n in range(30) if n % 5 and n not in {17, 22}]
    dropped = [r for r in result.rejects() if r["reason"] == "error: worker died"]
    assert [r["key"] for r in dropped] == ["0017", "0022"]
    assert [r["row"]["n"] for r in dropped] == [17, 22]
    assert not list(tmp_path.rglob(".*.tmp"))
    raising = Flaky({17: "raise", 22: "raise"}, shard_size=10)
    run(tmp_path / "raised", raising, replace(TWO, max_failed_fraction=0.1), pool)
    rows = [{k: v for k, v in contents(tmp_path / run).items() if "rows" in k} for run in ("killed", "raised")]
    assert rows[0] == rows[1]  # what is left is batched alike


def test_where_no_row_may_fail_the_row_that_kills_is_named(tmp_path: Path, pool: Executor) -> None:
    with pytest.raises(SdrrlError, match=r"1 rows failed where 0 may .* the last one, 0017: error: worker died"):
        run(tmp_path, Flaky({17: "kill"}), replace(TWO, on_error="fail"), pool)


def test_a_shard_that_kills_every_worker_stops_the_run_and_the_rest_stays(tmp_path: Path, pool: Executor) -> None:
    deadly = Flaky(dict.fromkeys(range(16, 20), "kill"))
    with pytest.raises(SdrrlError, match=r"shard 4 \(first row 0016\): the worker died \d+ times \(signal SIGKILL\)"):
        run(tmp_path, deadly, replace(TWO, max_failed_fraction=0.5), pool)
    kept = {p.name for p in tmp_path.rglob("*.facts.json")}
    assert "00000.facts.json" in kept
    assert "00004.facts.json" not in kept
    assert not list(tmp_path.rglob("done.json"))
    run(tmp_path / "whole", Flaky())
    run(tmp_path, Flaky(), TWO, pool)  # the cause is mended: it goes on from there
    assert contents(next(tmp_path.glob("flaky-*"))) == contents(next((tmp_path / "whole").glob("flaky-*")))


def test_a_worker_that_dies_while_it_writes_is_not_a_rows_fault(tmp_path: Path) -> None:
    suspect = Suspect(8, retries=1)
    note = note_path(tmp_path, 3)
    suspect.blame(note)  # the whole shard
    for span, blamed in (((0, 4), {(0, 8), (0, 4)}), ((2, 3), {(0, 8), (0, 4)}), ((2, 3), {(0, 8), (0, 4), (2, 3)})):
        Killers(note, frozenset()).trying(span)
        suspect.blame(note)
        assert not note.exists()
        assert suspect.killers() == blamed
    for hopeless in (False, True):
        suspect.blame(note)
        assert suspect.hopeless is hopeless


def test_an_engine_is_loaded_once_by_each_worker_and_kept_for_the_next_stage(tmp_path: Path, pool: Executor) -> None:
    folder = str(tmp_path / "loads")
    Path(folder).mkdir()
    run(tmp_path / "a", Flaky(folder=folder), TWO, pool, rows=60)
    run(tmp_path / "b", Flaky(folder=folder, name="again"), TWO, pool, rows=60)
    loads = list(Path(folder).glob("loaded-*"))
    assert 1 <= len(loads) <= 2
    assert len({p.name.split("-")[1] for p in loads}) == len(loads)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_poisoned_row_is_rejected_alone_and_counted(tmp_path: Path, pool: Executor, workers: int) -> None:
    config = replace(TWO, max_failed_fraction=0.1)
    executor: Executor = pool if workers == 2 else SerialExecutor()
    result = run(tmp_path / "a", Flaky({6: "raise", 22: "raise"}), config, executor)
    assert [r["n"] // 3 for r in result.source().read()] == [n for n in range(30) if n % 5 and n not in {6, 22}]
    failed = [r for r in result.rejects() if r["reason"] == "error: ValueError"]
    assert [(r["key"], r["detail"]) for r in failed] == [
        ("0006", "cannot do 6: <object at 0x…>"),
        ("0022", "cannot do 22: <object at 0x…>"),
    ]
    statistics = result.statistics()
    assert statistics["in"] == 30 == statistics["out"] + sum(statistics["dropped"].values())
    assert statistics["dropped"]["error: ValueError"] == 2
    run(tmp_path / "b", Flaky({6: "raise", 22: "raise"}), config)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_row_that_an_engine_refuses_is_dropped_alone_with_the_engines_words(tmp_path: Path) -> None:
    result = run(tmp_path / "a", Flaky({6: "refuse"}))
    assert [r["n"] // 3 for r in result.source().read()] == [n for n in range(30) if n % 5 and n != 6]
    (refused,) = [r for r in result.rejects() if r["reason"] != "divisible by five"]
    assert (refused["key"], refused["reason"]) == ("0006", "error: too long for the engine")
    assert refused["detail"] == "row 6 is too long"
    with pytest.raises(SdrrlError, match=r"2 rows failed where 1 may .* too long for the engine: row 22 is too long"):
        run(tmp_path / "b", Flaky({6: "refuse", 22: "refuse"}))


@pytest.mark.parametrize("config", [ExecutionConfig(max_failed_fraction=0.05), ExecutionConfig(on_error="fail")])
def test_too_many_poisoned_rows_stop_the_run_in_one_sentence(tmp_path: Path, config: ExecutionConfig) -> None:
    stage = Flaky(dict.fromkeys((1, 13, 29), "raise"))
    with pytest.raises(SdrrlError, match=r"stage flaky: \d rows failed where \d may.*cannot do \d+"):
        run(tmp_path, stage, config)
    assert not list(tmp_path.rglob("done.json"))


def test_a_stricter_setting_does_not_take_over_a_finished_stage(tmp_path: Path) -> None:
    run(tmp_path, Flaky({1: "raise"}))
    with pytest.raises(SdrrlError, match="1 rows failed where 0 may"):
        run(tmp_path, Flaky({1: "raise"}), ExecutionConfig(on_error="fail"))


def test_too_little_device_memory_makes_smaller_batches_not_rejects(tmp_path: Path) -> None:
    result = run(tmp_path / "a", Flaky({3: "oom 2", 8: "oom 1"}))
    assert [r["reason"] for r in result.rejects()] == ["divisible by five"] * 6
    assert contents(tmp_path / "a") == (run(tmp_path / "b", Flaky()) and contents(tmp_path / "b"))
    with pytest.raises(SdrrlError, match=r"too small for row 0003 alone"):
        run(tmp_path / "c", Flaky({3: "oom 0"}))


def test_a_failing_server_is_waited_for_and_is_no_reason_to_reject(tmp_path: Path) -> None:
    stage = Flaky({9: "oserror once"})
    stage.folder = str(tmp_path)
    result = run(tmp_path / "a", stage)
    assert {r["reason"] for r in result.rejects()} == {"divisible by five"}
    with pytest.raises(SdrrlError, match=r"ConnectionResetError: the server went away, after 1 tries; run the same"):
        run(tmp_path / "b", Flaky({9: "oserror"}), ExecutionConfig(retries=0))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room_is_one_sentence_and_what_is_finished_stays(tmp_path: Path) -> None:
    with largest_file(20_000), pytest.raises(SdrrlError, match=r"00003\.rows\.jsonl: no room to write \(File too larg"):
        run(tmp_path, Large(50_000), rows=6)
    assert not list(tmp_path.rglob(".*.tmp"))
    assert {p.name for p in tmp_path.rglob("*.facts.json")} == {f"0000{i}.facts.json" for i in range(3)}
    assert [len(r["text"]) for r in run(tmp_path, Large(50_000), rows=6).source().read()] == [
        10,
        10,
        10,
        50_000,
        10,
        10,
    ]


FULL_DISK = """
import sys
from pathlib import Path
from contextlib import closing
sys.path.insert(0, {root!r})
from tests.unit.data.execution.test_execution import ExecutionConfig, Large, run
if __name__ == "__main__":  # workers import this file too
    try:
        run(Path({disk!r}), Large(300_000), ExecutionConfig(workers={workers}), rows=6)
    except Exception as e:
        print(type(e).__name__, e)
    print(sorted(p.name for p in Path({disk!r}).rglob("*") if p.name.endswith((".facts.json", ".tmp"))))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_is_really_full(tmp_path: Path, workers: int) -> None:
    """A file system of 256 KiB in a name space of its own, which needs no privilege on most systems."""
    disk, script = tmp_path / "disk", tmp_path / "script.py"
    disk.mkdir()
    script.write_text(FULL_DISK.format(root=str(Path(__file__).parents[4]), disk=str(disk), workers=workers))
    mounted = f"mount -t tmpfs -o size=256k none '{disk}' || exit 77; exec '{sys.executable}' '{script}'"
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", mounted], capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this system lets nobody but root mount a file system")
    error, files = done.stdout.splitlines()[-2:]
    assert error.startswith("SdrrlError")
    # beside the large file another worker's small one may be the first that finds no room
    named = r"0000\d\.\w+\.jsonl?" if workers > 1 else r"00003\.rows\.jsonl"
    assert re.search(rf"{named}: no room to write \(No space left on device\); free some and run", error)
    assert workers > 1 or "00000.facts.json" in files
    assert "00003.facts.json" not in files
    assert ".tmp" not in files


DRIVER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from sdrrl_nemo.data.execution import ExecutionConfig, make_executor
from sdrrl_nemo.data.execution.shard import Task
from tests.unit.data.execution.flaky_stages import Flaky
if __name__ == "__main__":
    executor = make_executor(ExecutionConfig(workers=2))
    shards = ((i, [{{"key": "k", "n": 1}}]) for i in range(2))
    list(executor.map(Task(Flaky(), Path({out!r}), 0, 0), shards))
    print(*[w.process.pid for w in executor._workers], flush=True)
    time.sleep(60)
"""


def test_workers_end_with_a_killed_driver(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(root=str(Path(__file__).parents[4]), out=str(tmp_path / "out")))
    driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pids = [int(pid) for pid in driver.stdout.readline().split()]
    assert len(pids) == 2
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_memory_holds_a_bounded_number_of_shards(tmp_path: Path, pool: Executor) -> None:
    """The source is never read further ahead than the shards in flight."""
    written = tmp_path / "stages"
    ahead: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for i in range(160):
            if i % 4 == 0:
                ahead.append(i // 4 - sum(1 for _ in written.rglob("*.facts.json")))
            yield {"key": f"{i:04d}", "n": i}

    config = replace(TWO, max_in_flight=0)
    Runner(written, pool, config).run(Flaky(), Source("many", rows, 160))
    assert len(ahead) == 40
    assert max(ahead) <= 4


def test_a_mistake_in_a_stage_keeps_its_trace(tmp_path: Path, pool: Executor) -> None:
    class Local(Flaky):
        pass

    with pytest.raises(SdrrlError, match="stage flaky cannot be carried to a worker process"):
        run(tmp_path, Local(), TWO, pool)
    stage = Flaky()
    stage.trouble = None  # type: ignore[assignment]
    with pytest.raises(SdrrlError, match="AttributeError: 'NoneType' object has no attribute 'get'"):
        run(tmp_path, stage, TWO, pool)


def test_what_a_stage_asks_for() -> None:
    config = ExecutionConfig(
        backend="ray",
        workers=8,
        stages={
            "translate": StageExecution(workers=4, gpus_per_worker=1.0),
            "*quality": StageExecution(gpus_per_worker=0.5),
            "translate.eng-jpn": StageExecution(workers=2),
        },
    )
    found = {
        name: resources_of(config, name) for name in ("translate.eng-por", "translate.eng-jpn", "held-out-quality")
    }
    assert [(r.workers, r.cpus, r.gpus) for r in found.values()] == [(4, 1.0, 1.0), (2, 1.0, 1.0), (8, 1.0, 0.5)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ExecutionConfig(backend="rya"), "execution.backend: unknown value 'rya'; did you mean 'ray'?"),
        (ExecutionConfig(on_error="skip"), "execution.on_error: unknown value 'skip'"),
        (ExecutionConfig(workers=0), "execution: workers must be at least 1"),
        (ExecutionConfig(address="auto"), "execution.address: only backend 'ray' joins a cluster"),
        (ExecutionConfig(max_failed_fraction=2), "max_failed_fraction: 2 is not between 0 and 1"),
        (ExecutionConfig(workers=2, gpus_per_worker=1), "does not share GPUs out among workers; set execution.backend"),
        (ExecutionConfig(stages={"translate": StageExecution(workers=0)}), "execution.stages.translate: workers must"),
    ],
)
def test_bad_settings(config: ExecutionConfig, message: str) -> None:
    with pytest.raises(SdrrlError) as caught:
        validate_execution(config)
    assert message in str(caught.value)


def test_settings_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "execution.yaml"
    path.write_text("backend: ray\nworkers: 3\nstages: {translate: {workers: 4, gpus_per_worker: 1}}\n")
    config = load_config(ExecutionConfig, path)
    assert config.stages["translate"].gpus_per_worker == 1
    assert resources_of(config, "translate").workers == 4


def test_a_task_is_small_whatever_its_engine_has_loaded(tmp_path: Path) -> None:
    from sdrrl_nemo.data.execution import Task

    stage = Flaky(folder=str(tmp_path))
    before = pack(Task(stage, tmp_path, 0, 0))
    stage.process([{"key": "a", "n": 1}])
    assert pack(Task(stage, tmp_path, 0, 0)) == before


@pytest.mark.skipif(sys.platform != "linux", reason="Ray's own processes are looked up in /proc")
def test_ray_gives_the_same_bytes_and_survives_a_dead_worker(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "seen").mkdir()
    stage = Flaky({5: "kill once", 6: "raise"})
    stage.folder = str(tmp_path / "seen")
    run(tmp_path / "ray", stage, ExecutionConfig(backend="ray", workers=2))
    run(tmp_path / "here", Flaky({6: "raise"}))
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")
    assert os.listdir(tmp_path / "seen") == ["seen-5"]
