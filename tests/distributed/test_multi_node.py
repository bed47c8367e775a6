"""Several nodes on one machine: two torchruns that meet over c10d train as one with two processes; NeMo-Run too."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch import ROOT, environment, free_port
from tests.runs import metric_rows
from tests.tiny import packed_set, tiny_model
from tests.warm import for_torchrun, python, torchrun

RECIPE = "recipes/sdrrl_pretrain.py"
STEPS = 2


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nodes")
    model = tiny_model(folder / "model")
    packed_set(folder / "data", model)
    settings = {
        "run_dir": str(folder / "together"),
        "model": {"hf_path": str(model)},
        "data": {"path": str(folder / "data")},
        "trainer": {"precision": "fp32", "global_batch_size": 4, "max_steps": STEPS, "save_every": 1, "num_threads": 1},
        "optim": {"lr": 1.0e-3, "use_distributed_optimizer": True},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def together(config: Path) -> list[dict[str, Any]]:
    """Steps of the run with --nproc-per-node 2."""
    done = torchrun(2, RECIPE, "--config", str(config))
    assert done.returncode == 0, done.stdout[-4000:]
    return metric_rows(config.parent / "together")


@contextlib.contextmanager
def two_nodes(
    config: Path, run: Path, overrides: list[str], more: dict[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """configs/clusters/torchrun_node.sh twice, as two machines would start it; ``more`` environment variables."""
    node = {"NNODES": "2", "GPUS": "1", "HEAD": "127.0.0.1", "NODE": "127.0.0.1", "PORT": str(free_port())}
    node |= {"TORCHRUN": str(Path(sys.executable).with_name("torchrun")), "JOIN_SECONDS": "120", "SAVE_SECONDS": "60"}
    command = ["bash", "configs/clusters/torchrun_node.sh", "--config", str(config), f"run_dir={run}", *overrides]
    started = []
    try:
        for i in range(2):
            with open(run.with_suffix(f".{i}.log"), "a") as log:
                env = {**environment(), **node, **more}
                started.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log))
        yield started
    finally:
        for p in started:
            p.terminate()
            p.wait(60)


def logs(run: Path) -> str:
    return "".join(run.with_suffix(f".{i}.log").read_text()[-3000:] for i in range(2))


def test_two_nodes_train_as_one(config: Path, together: list[dict[str, Any]], tmp_path: Path) -> None:
    """With the processes that torchrun itself starts; in the other tests it starts forked ones."""
    run = tmp_path / "run"
    with two_nodes(config, run, [], {}) as nodes:
        assert [p.wait(300) for p in nodes] == [0, 0], logs(run)
    assert metric_rows(run) == together
    assert len(together) == STEPS
    assert together[0]["loss"] != together[1]["loss"]


def test_a_lost_process_is_started_again_on_both_nodes(config: Path, tmp_path: Path) -> None:
    """SIGKILL of one node's process: --max-restarts starts all again, from the newest checkpoint."""
    run = tmp_path / "run"
    overrides = ["trainer.max_steps=20", "trainer.save_every=5"]
    with for_torchrun() as forked, two_nodes(config, run, overrides, forked) as nodes:
        deadline = time.monotonic() + 300
        metrics = run / "metrics.jsonl"
        while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= STEPS):
            assert all(p.poll() is None for p in nodes), logs(run)
            assert time.monotonic() < deadline, "no progress in five minutes"
            time.sleep(0.01)
        os.kill(only_child(nodes[1].pid), signal.SIGKILL)
        assert [p.wait(300) for p in nodes] == [0, 0], logs(run)
    assert [row["step"] for row in metric_rows(run)] == list(range(1, 21))


def only_child(pid: int) -> int:
    """The worker of a torchrun that has one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    workers = [int(c) for c in children if b"sdrrl_pretrain" in Path(f"/proc/{c}/cmdline").read_bytes()]
    assert len(workers) == 1
    return workers[0]


def test_nemo_run_starts_the_same(
    config: Path, together: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEMORUN_HOME", str(tmp_path / "nemo_run"))
    run = tmp_path / "run"
    launch = tmp_path / "launch.yaml"
    settings: dict[str, Any] = {"name": "tiny", "config": str(config), "overrides": [f"run_dir={run}"]}
    with for_torchrun() as forked:
        settings |= {"processes_per_node": 2, "env": {"OMP_NUM_THREADS": "1", **forked}}
        launch.write_text(yaml.safe_dump(settings))
        done = python("tools/launch_nemo_run.py", "--config", str(launch))
        assert done.returncode == 0, done.stdout[-4000:]
        assert metric_rows(run) == together
        other = ["name=other", "overrides=[run_dir=/proc/no]"]
        broken = python("tools/launch_nemo_run.py", "--config", str(launch), *other)
    assert broken.returncode == 2
    assert "error: other: the run did not succeed" in broken.stdout
