"""The learning rate of a method: the lowest held-out loss of one grid; ties, failures and ends of the grid are said."""

from __future__ import annotations

import json

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.study import learning_rates
from sdrrl_nemo.study.config import LearningRateConfig, check, training_config
from sdrrl_nemo.study.plan import Markers, data_dir, plan
from sdrrl_nemo.study.run import clock, forecast

GRID = [1e-4, 3e-4, 9e-4]


def tried(study, losses, skipped=(0, 0, 0), method="sft"):
    """Pretend that the short runs of a method ended with these held-out losses."""
    markers = Markers(study.work_dir)
    stages = {s.name: s for s in plan(study, "study.yaml", [])}
    for trial, loss, skips in zip(learning_rates.trials(study, method), losses, skipped, strict=True):
        trial.run_dir.mkdir(parents=True, exist_ok=True)
        (trial.run_dir / "validation.jsonl").write_text(json.dumps({"step": 15, "loss": loss}) + "\n")
        rows = [{"step": k + 1, "skipped": k < skips} for k in range(3)]
        (trial.run_dir / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        markers.mark(stages[trial.stage], 30.0)
    return learning_rates.choice(study, method, markers.root)


@pytest.fixture
def grid(study):
    study.learning_rates = LearningRateConfig(GRID, steps=15)
    return study


def test_the_lowest_held_out_loss_decides_and_goes_into_the_trainings(grid):
    before = {s.name: s for s in plan(grid, "c", [])}
    assert learning_rates.choice(grid, "sft", Markers(grid.work_dir).root) is None
    found = tried(grid, [3.2, 3.0, 3.1])
    assert found == {
        "lr": 3e-4,
        "grid": [{"lr": lr, "loss": x, "skipped_steps": 0} for lr, x in zip(GRID, (3.2, 3.0, 3.1), strict=True)],
        "notes": [],
    }
    after = {s.name: s for s in plan(grid, "c", [])}
    assert "optim.lr=0.0003" in after["train/sft-1"].script and "optim.lr=0.0003" in after["train/sft-2"].script
    assert not any(x.startswith("optim.lr") for x in after["train/sdrrl-1"].script)  # not decided yet
    assert {n for n in before if before[n].key != after[n].key} == {
        f"{kind}/sft-{n}" for kind in ("train", "export", "measure") for n in (1, 2)
    }
    assert {f"choose_lr/sft-{k}" for k in (1, 2, 3)} <= set(after["train/sft-1"].needs)


def test_the_short_runs_of_all_methods_differ_in_data_and_rate_alone(grid):
    found = {}
    for method in ("sft", "sdrrl"):
        for trial in learning_rates.trials(grid, method):
            config = training_config(grid, learning_rates.overrides(grid, trial, data_dir(grid, method)))
            assert (config.trainer.max_steps, config.trainer.save_every, config.data.validation) == (
                15,
                -1,
                "validation",
            )
            found.setdefault(method, []).append((config.optim.lr, config.seed, config.trainer.global_batch_size))
    assert found["sft"] == found["sdrrl"] and [f[0] for f in found["sft"]] == GRID


@pytest.mark.parametrize(
    ("losses", "skipped", "lr", "notes"),
    [
        ([3.00001, 3.00002, 3.1], (0, 0, 0), 1e-4, ["tie of 0.0001, 0.0003: the smallest is taken",
                                                   "at the lower end of the grid"]),
        ([3.0, 2.0, float("nan")], (0, 0, 3), 3e-4, ["no finite loss with 0.0009"]),
        ([3.0, 2.0, 1.0], (0, 0, 1), 9e-4, ["steps were skipped with 0.0009", "at the upper end of the grid"]),
    ],
)  # fmt: skip
def test_ties_failures_and_ends_are_said(grid, losses, skipped, lr, notes):
    found = tried(grid, losses, skipped)
    assert (found["lr"], found["notes"]) == (lr, notes)


def test_a_grid_that_trains_nothing_and_wrong_grids_are_one_sentence(grid):
    with pytest.raises(SdrrlError, match=r"learning_rates.grid: no rate gave 'sft' a finite held-out loss; lower"):
        tried(grid, [float("inf")] * 3)
    for rates in ([1e-4, 1e-4], [0.0]):
        grid.learning_rates.grid = rates
        with pytest.raises(SdrrlError, match=r"learning_rates.grid: .* must be above 0 and stand there once"):
            check(grid)


def test_a_forecast_counts_what_is_left_by_what_was_timed(grid):
    """A step of the short runs took 2 seconds; a training has 8."""
    tried(grid, [3.2, 3.0, 3.1])
    said = forecast(grid, "c", [], ("choose_lr", "train")).splitlines()
    assert said[0] == f"{grid.work_dir}: 12 of 15 stages are left, about 2 min with 2 side by side"
    assert said[1:] == ["  choose_lr     6 x 30 s", "  train         6 x 16 s"]
    guessed = forecast(grid, "c", [], ("export",)).splitlines()
    assert "nothing like some of them was timed" in guessed[0] and guessed[1].endswith("(a guess)")
    assert [clock(s) for s in (40, 600, 3900)] == ["40 s", "10 min", "1 h 05 min"]
