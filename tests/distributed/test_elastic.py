"""A run that goes on with fewer processes: four, then two, then one, each asked to end by SIGTERM before the next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.runs import metric_rows, steps_done
from tests.tiny import packed_set, tiny_model
from tests.warm import asked_to_end, torchrun

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


def _left_by(processes: int, run: Path, config: Path, steps: int) -> int:
    """Ask so many ranks to end when so many steps are logged; the step whose checkpoint they leave."""
    asked_to_end(processes, RECIPE, config, run, steps)
    newest = max((run / "checkpoints").glob("step-*"))
    assert int(newest.name.removeprefix("step-")) == steps_done(run)
    return steps_done(run)


def test_four_two_one(config: Path, tmp_path: Path) -> None:
    run, straight = tmp_path / "run", tmp_path / "straight"
    first = _left_by(4, run, config, 2)
    second = _left_by(2, run, config, first + 2)
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
