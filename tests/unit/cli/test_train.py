"""sdrrl train: what goes to torchrun and what to the recipe, how many processes, and that signals and codes pass."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sdrrl_nemo.cli import train as command
from sdrrl_nemo.cli.main import COMMANDS
from sdrrl_nemo.common.errors import SdrrlError
from tests.launch import IMPORT_PATHS, ROOT, descendants, environment, signalled
from tests.tiny_weights import tiny_folder

SCRIPT = COMMANDS["train"].script


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A configuration of two tensor-parallel ranks; the model has weights and no tokenizer, data are not there."""
    model = tiny_folder(tmp_path / "model")
    path = tmp_path / "run.yaml"
    path.write_text(f"run_dir: out\nmodel: {{hf_path: '{model}'}}\ndata: {{path: no-data}}\ntrainer: {{tp: 2}}\n")
    return str(path)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What would take the process's place, instead of it."""
    calls: list[tuple[list[str], dict[str, str]]] = []

    def execve(path: str, arguments: list[str], env: dict[str, str]) -> None:
        assert path == sys.executable
        calls.append((arguments, env))

    monkeypatch.setattr(os, "execve", execve)
    return calls


@pytest.mark.parametrize(
    ("argv", "options", "arguments"),
    [
        (["--config", "f", "a=1"], [], ["--config", "f", "a=1"]),
        (["--config=f"], [], ["--config=f"]),
        (["--nnodes", "2", "--config", "f"], ["--nnodes", "2"], ["--config", "f"]),
        (["--nnodes=2", "--", "a=1", "--config", "f"], ["--nnodes=2"], ["a=1", "--config", "f"]),
        (["--dry-run", "--config", "f"], [], ["--config", "f", "--dry-run"]),
        (["--gpus", "4", "--dry-run", "--config", "f"], [], ["--config", "f", "--gpus", "4", "--dry-run"]),
        (["--gpus=4", "--config", "f", "--dry-run"], [], ["--config", "f", "--dry-run", "--gpus=4"]),
        (["--rdzv-conf", "a=b", "--config", "f"], ["--rdzv-conf", "a=b"], ["--config", "f"]),
        ([], [], []),
    ],
)
def test_what_stands_before_config_is_torchruns(argv: list[str], options: list[str], arguments: list[str]) -> None:
    assert command.split(argv) == (options, arguments)


def test_an_override_before_config_is_an_error_that_shows_the_right_order() -> None:
    with pytest.raises(SdrrlError, match=r"'trainer.tp=2' stands before --config; write: sdrrl train --config FILE tr"):
        command.split(["trainer.tp=2", "--config", "f"])


@pytest.mark.parametrize(
    ("gpus", "overrides", "processes"),
    [(0, [], "2"), (0, ["trainer.pp=2", "trainer.cp=3"], "12"), (0, ["trainer.tp=1"], "1"), (4, [], "4")],
)
def test_processes_on_this_machine(
    gpus: int, overrides: list[str], processes: str, config: str, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    command.train(["--config", config, *overrides], SCRIPT)
    [(words, _)] = started
    recipe = str(ROOT / "recipes" / "sdrrl_pretrain.py")
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run"]
    assert words == [*torchrun, "--standalone", "--nproc-per-node", processes, recipe, "--config", config, *overrides]


def test_torchruns_options_are_taken_as_they_are(config: str, started: list[Any]) -> None:
    command.train(["--nnodes", "2", "--rdzv-endpoint", "a:1", "--config", config, "seed=3"], SCRIPT)
    words = started[0][0][4:]
    assert words[:4] == ["--nnodes", "2", "--rdzv-endpoint", "a:1"] and words[5:] == ["--config", config, "seed=3"]


def test_a_wrong_key_is_said_before_torchrun_starts(config: str, started: list[Any]) -> None:
    with pytest.raises(SdrrlError, match=r"unknown key 'trainer\.tpp'; did you mean 'trainer\.tp'"):
        command.train(["--config", config, "trainer.tpp=2"], SCRIPT)
    assert not started


def test_a_damaged_weight_file_is_said_before_torchrun_starts(config: str, started: list[Any], tmp_path: Path) -> None:
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(SdrrlError, match=r"model\.safetensors: cut: it has [\d,]+ bytes"):
        command.train(["--config", config], SCRIPT)
    weights.unlink()
    with pytest.raises(SdrrlError, match="so it has no weights"):
        command.train(["--config", config], SCRIPT)
    assert not started


def test_dry_run_and_help_go_to_the_recipe_without_torchrun(
    config: str, started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as e:
        command.train(["--help"], SCRIPT)
    assert not e.value.code
    assert "goes to torchrun as it is" in capsys.readouterr().out
    with pytest.raises(SdrrlError, match=r"no-such\.yaml: no such configuration file"):
        command.train(["--dry-run", "--config", "no-such.yaml"], SCRIPT)
    assert not started


@pytest.mark.parametrize(
    ("options", "given", "threads"),
    [
        (["--standalone", "--nproc-per-node", "2"], {}, "2"),
        (["--standalone", "--nproc-per-node", "3"], {}, "1"),
        (["--standalone", "--nproc-per-node", "16"], {}, "1"),
        (["--standalone", "--nproc-per-node", "2"], {"OMP_NUM_THREADS": "7"}, "7"),
        (["--nnodes", "2"], {}, None),
    ],
)
def test_processes_share_the_cores(
    options: list[str], given: dict[str, str], threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(5)))
    assert command.environment(given, options).get("OMP_NUM_THREADS") == threads
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert command.environment({}, ["--standalone", "--nproc-per-node", "2"])["OMP_NUM_THREADS"] == "8"


def test_the_recipe_gets_this_checkouts_code() -> None:
    assert command.environment({"PYTHONPATH": "/x"}, [])["PYTHONPATH"] == os.pathsep.join([*IMPORT_PATHS, "/x"])
    assert command.environment({}, [])["PYTHONPATH"] == os.pathsep.join(IMPORT_PATHS)


RECIPE = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(__file__).parent
def stop(number, frame):
    (folder / ("stopped" + os.environ["RANK"])).touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
(folder / ("rank" + os.environ["RANK"])).write_text(os.environ["WORLD_SIZE"] + " " + " ".join(sys.argv[1:]))
if "seed=5" in sys.argv:
    sys.exit(5)
time.sleep(120)
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """sdrrl train with a recipe that only waits."""
    recipe = folder / "recipe.py"
    recipe.write_text(RECIPE)
    code = f"import sys; from sdrrl_nemo.cli.train import train; sys.exit(train(sys.argv[1:], {str(recipe)!r}))"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment(), stderr=subprocess.DEVNULL)


def test_a_signal_reaches_every_process_through_torchrun(config: str, tmp_path: Path) -> None:
    process = start(tmp_path, "--config", config, "seed=4")
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("rank*"))) < 2 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        time.sleep(0.5)  # both have written their files
        assert [(tmp_path / f"rank{r}").read_text() for r in (0, 1)] == [f"2 --config {config} seed=4"] * 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) != 0  # torchrun's own code for a run that was ended
        assert sorted(p.name for p in tmp_path.glob("stopped*")) == ["stopped0", "stopped1"]
    finally:
        signalled([*descendants(process.pid), process.pid], signal.SIGKILL)
        process.wait()


def test_a_run_that_fails_fails_the_command(config: str, tmp_path: Path) -> None:
    process = start(tmp_path, "--nproc-per-node", "1", "--standalone", "--config", config, "seed=5")
    try:
        assert process.wait(timeout=120) == 1  # torchrun's code for a process that failed
        assert (tmp_path / "rank0").read_text().startswith("1 ")
    finally:
        signalled([*descendants(process.pid), process.pid], signal.SIGKILL)
        process.wait()
