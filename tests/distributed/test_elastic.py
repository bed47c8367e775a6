"""A run that goes on with fewer processes: four, then two, then one, each asked to end by SIGTERM before the next."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests.runs import metric_rows
from tests.tiny import packed_set, tiny_model
from tests.warm import start, torchrun

RECIPE = "recipes/sdrrl_pretrain.py"
STEPS = 12


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elastic")
    model = tiny_model(folder / "model", layers=2)
    packed_set(folder / "data", model)
    settings = {
        "run_dir": "unset",
        "model": {"hf_path": str(model), "pad_heads_to": 2},
        "data": {"path": str(folder / "data")},
        "trainer": {"precision": "fp32", "global_batch_size": 4, "max_steps": STEPS, "save_every": 100},
        "optim": {"lr": 1.0e-3, "use_distributed_optimizer": True},
    }
    settings["trainer"]["num_threads"] = 1
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def _steps(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.is_file() else 0


def _asked_to_end(processes: int, run: Path, config: Path, steps: int) -> int:
    """Start so many ranks, ask all to end when so many steps are logged; the step whose checkpoint they leave."""
    with start(processes, RECIPE, "--config", str(config), f"run_dir={run}") as ranks:
        deadline = time.monotonic() + 300
        while _steps(run) < steps:
            assert ranks.running(), ranks.text()[-4000:]
            assert time.monotonic() < deadline, "no progress in five minutes"
            time.sleep(0.005)
        ranks.kill(signal.SIGTERM)
        done = ranks.wait(120)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "SIGTERM after step" in done.stdout
    newest = max((run / "checkpoints").glob("step-*"))
    assert int(newest.name.removeprefix("step-")) == _steps(run)
    return _steps(run)


def test_four_two_one(config: Path, tmp_path: Path) -> None:
    run, straight = tmp_path / "run", tmp_path / "straight"
    first = _asked_to_end(4, run, config, 2)
    second = _asked_to_end(2, run, config, first + 2)
    assert 2 <= first < second < STEPS, "the run was over before it could be asked"
    done = torchrun(1, RECIPE, "--config", str(config), f"run_dir={run}")
    assert done.returncode == 0, done.stdout[-4000:]
    done = torchrun(1, RECIPE, "--config", str(config), f"run_dir={straight}")
    assert done.returncode == 0, done.stdout[-4000:]
    expected, found = metric_rows(straight), metric_rows(run)
    assert [r["step"] for r in found] == list(range(1, STEPS + 1))
    for key in ("loss", "grad_norm", "lr", "tokens"):
        assert [r[key] for r in found] == pytest.approx([r[key] for r in expected], rel=2e-5), key
    assert json.loads((run / "finished.json").read_text())["step"] == STEPS
