"""Stages run in the order of their needs, once; what fails names its log; what is killed takes its stages along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.study import execute
from sdrrl_nemo.study.execute import Executor, last_line
from sdrrl_nemo.study.plan import Stage
from tests.launch import ROOT

TOOL = """
import os, signal, sys, time
from pathlib import Path
log, name, what = sys.argv[1:4]
print("this is", name, "in", os.getpid())
os.environ["LEFT_BEHIND"] = os.environ.get("LEFT_BEHIND", "") + name
if what == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "look":
    print("left behind:", os.environ["LEFT_BEHIND"])
with open(log, "a") as f:
    f.write(f"begin {name}\\n")
if what == "fail":
    sys.exit("error: the disk is full")
def save(*ignored):  # as a training does
    time.sleep(0.5)
    with open(log, "a") as f:
        f.write(f"saved {name}\\n")
    sys.exit(0)
if what == "save":
    signal.signal(signal.SIGTERM, save)
if what == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if what in ("sleep", "save", "deaf"):
    print("ready", flush=True)
    time.sleep(60)
while what == "meet" and Path(log).read_text().count("begin train/") < 2:
    time.sleep(0.05)
with open(log, "a") as f:
    f.write(f"end {name}\\n")
"""


@pytest.fixture
def tool(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(execute, "PRELOAD", "json")  # Megatron takes long to import and is not needed here
    monkeypatch.setattr(execute, "POLL", 0.05)
    path = tmp_path / "tool.py"
    path.write_text(TOOL, encoding="utf-8")
    return path


def stage(tool: Path, name: str, what: str = "-", **options) -> Stage:
    return Stage(name, (str(tool), str(tool.parent / "order"), name, what), key=f"key of {name}", **options)


def order(tool: Path) -> list[str]:
    path = tool.parent / "order"
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def test_needs_come_first_and_nothing_is_done_twice(tool, tmp_path):
    stages = [
        stage(tool, "data/a", alone=True),
        stage(tool, "train/a-1", "meet", needs=("data/a",)),  # ends when the other one has begun
        stage(tool, "train/a-2", "meet", needs=("data/a",)),
    ]
    assert Executor(tmp_path / "w", 2, 1).run(stages) == 3
    lines = order(tool)
    assert lines[:2] == ["begin data/a", "end data/a"]
    assert sorted(lines[2:4]) == ["begin train/a-1", "begin train/a-2"]
    assert Executor(tmp_path / "w", 2, 1).run(stages) == 0
    assert order(tool) == lines
    assert "this is train/a-1" in (tmp_path / "w/logs/train-a-1.log").read_text(encoding="utf-8")


def test_what_a_stage_leaves_is_removed_when_it_is_done(tool, tmp_path):
    rest = tmp_path / "checkpoints"
    rest.mkdir()
    Executor(tmp_path / "w", 1, 1).run([stage(tool, "export/a-1", remove=(rest,))])
    assert not rest.exists()


def test_a_failure_is_one_sentence_and_stops_what_comes_after(tool, tmp_path):
    stages = [stage(tool, "train/a-1", "fail"), stage(tool, "train/a-2")]
    with pytest.raises(
        SdrrlError, match=r"train/a-1 failed \(exit code 1\): error: the disk is full; .*train-a-1\.log"
    ):
        Executor(tmp_path / "w", 1, 1).run(stages)
    assert order(tool) == ["begin train/a-1"]
    # mended, the same plan continues
    assert Executor(tmp_path / "w", 1, 1).run([stage(tool, "train/a-1"), stages[1]]) == 2


def test_other_settings_do_not_take_over_a_finished_stage(tool, tmp_path):
    Executor(tmp_path / "w", 1, 1).run([stage(tool, "train/a-1")])
    changed = Stage("train/a-1", ("x",), key="another")
    with pytest.raises(SdrrlError, match=r"train/a-1 was done with other settings; choose another work_dir"):
        Executor(tmp_path / "w", 1, 1).run([changed])


def test_a_need_that_nobody_meets_is_named(tool, tmp_path):
    with pytest.raises(SdrrlError, match=r"measure/a-1 needs export/a-1"):
        Executor(tmp_path / "w", 1, 1).run([stage(tool, "measure/a-1", needs=("export/a-1",))])


def test_one_process_takes_stage_after_stage(tool, tmp_path):
    """Each finds the environment of a new process, its output goes to its own log; a crash is an error of one stage."""
    executor = Executor(tmp_path / "w", 1, 1, one_process="spawn")
    names = ("train/a-1", "export/a-1", "measure/a-1")
    try:
        executor.run([stage(tool, name, "look") for name in names])
        logs = [(tmp_path / f"w/logs/{n.replace('/', '-')}.log").read_text(encoding="utf-8") for n in names]
        assert len({log.split()[4] for log in logs}) == 1
        assert [log.splitlines()[1] for log in logs] == [f"left behind: {n}" for n in names]
        with pytest.raises(SdrrlError, match=r"train/a-2 failed \(exit code 1\): error: the disk is full; .*train-a-2"):
            executor.run([stage(tool, "train/a-2", "fail")])
        with pytest.raises(SdrrlError, match=r"train/a-3 failed \(signal 9\)"):
            executor.run([stage(tool, "train/a-3", "die")])
    finally:
        executor.close()


STUDY = """
import sys
from sdrrl_nemo.study import execute
from sdrrl_nemo.study.plan import Stage
if __name__ == "__main__":
    execute.PRELOAD = "json"
    tool, log, work, what = sys.argv[1:5]
    try:
        execute.Executor(work, 1, 1).run([Stage("train/a-1", (tool, log, "train/a-1", what), key="k")])
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.fixture
def start(tool, tmp_path) -> Callable[[str], subprocess.Popen]:
    """Starts a study of one stage, as a terminal does: in a process group of its own; returns once the stage waits."""

    def started(what: str) -> subprocess.Popen:
        script = tmp_path / "study.py"
        script.write_text(STUDY, encoding="utf-8")
        study = subprocess.Popen(
            [sys.executable, str(script), str(tool), str(tmp_path / "order"), str(tmp_path / "w"), what],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/kernels"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        log = tmp_path / "w/logs/train-a-1.log"
        assert wait_for(lambda: log.is_file() and "ready" in log.read_text(encoding="utf-8"), 60)
        assert stage_processes(tool)
        return study

    return started


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_study_takes_its_stages_along(start, tool, tmp_path, how):
    study = start("sleep")
    study.send_signal(how)
    study.wait(30)
    assert wait_for(lambda: not stage_processes(tool), 15)
    assert not (tmp_path / "w/done").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_training_writes_its_checkpoint_before_a_stopped_study_ends(start, tool, tmp_path, how):
    """Ctrl-C and a closed terminal reach the whole group, as some launchers' SIGTERM does."""
    study = start("save")
    os.killpg(study.pid, how)
    _, said = study.communicate(timeout=30)
    assert study.returncode == 130
    assert "study: stopping train/a-1; Ctrl-C again does not wait for it" in said
    assert order(tool) == ["begin train/a-1", "saved train/a-1"]
    assert not (tmp_path / "w/done").exists()


def test_the_second_interrupt_does_not_wait(start, tool):
    study = start("deaf")
    os.killpg(study.pid, signal.SIGINT)
    for line in study.stderr:
        if "stopping" in line:
            break
    os.killpg(study.pid, signal.SIGINT)
    study.communicate(timeout=30)
    assert study.returncode == 130
    assert wait_for(lambda: not stage_processes(tool), 15)


def test_a_training_that_something_else_stopped_is_not_done(tool, tmp_path):
    """A signal to the training alone ends it well, after a checkpoint on the way."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    half = stage(tool, "train/a-1", steps=3, run_dir=run_dir)
    metrics = run_dir / "metrics.jsonl"
    metrics.write_text('{"step": 1}\n', encoding="utf-8")
    with pytest.raises(SdrrlError, match=r"train/a-1 was stopped 2 of 3 steps before its end; the same command"):
        Executor(tmp_path / "w", 1, 1).run([half])
    metrics.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n', encoding="utf-8")
    assert Executor(tmp_path / "w", 1, 1).run([half]) == 1


def test_a_run_that_ended_before_its_last_step_by_its_own_rule_is_done(tool, tmp_path):
    (tmp_path / "finished.json").write_text("{}", encoding="utf-8")
    Executor(tmp_path / "w", 1, 1).run([stage(tool, "train/a-1", steps=3, run_dir=tmp_path)])


def stage_processes(tool: Path) -> list[str]:
    """Processes that hold the log of the stage open."""
    log = str(tool.parent / "w" / "logs" / "train-a-1.log")
    found = []
    for fd in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if os.readlink(fd) == log:
                found.append(str(fd))
        except OSError:
            continue  # gone meanwhile, or another user's
    return found


def wait_for(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_last_line_skips_blank_ones(tmp_path):
    assert last_line(tmp_path / "none") == "no output"
    (tmp_path / "log").write_text("a\nb \n\n", encoding="utf-8")
    assert last_line(tmp_path / "log") == "b"
