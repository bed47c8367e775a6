"""Blends of three languages: in every mixture and layout the step losses average to the weighted Eq. 6."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sdrrl_nemo.common.fileio import read_json
from tests.distributed.blend_cases import (
    LAYOUTS,
    MIXTURES,
    TIMEOUT,
    TOLERANCE,
    Losses,
    Workspace,
    addends,
    float64_losses,
    largest_difference,
    make_workspace,
    runs_of,
)
from tests.runs import metric_rows

pytestmark = pytest.mark.timeout(2 * TIMEOUT)
IN_ALL_LAYOUTS = "numbers"
"""The mixture with everything in it: draws that an epoch does not come through, weights of languages and of samples.
The others are run by one process here; docs/results/blend_identity.json has all of them in all layouts."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("blend"))


@pytest.fixture(scope="module")
def losses(workspace: Workspace) -> Losses:
    return float64_losses(workspace)


def chosen_runs(work: Workspace, processes: int) -> dict[str, str]:
    every = runs_of(work, processes)
    return {k.replace(", ", "-"): v for k, v in every.items() if k.startswith(IN_ALL_LAYOUTS) or k.endswith(", 1")}


@pytest.fixture(scope="module")
def trained(workspace: Workspace) -> Workspace:
    """All runs, those with the same number of processes in one start."""
    for processes in (1, 2):
        runs = chosen_runs(workspace, processes)
        workspace.train(processes, {name.replace(" ", "_"): more for name, more in runs.items()})
    return workspace


def run_of(work: Workspace, name: str, layout: str) -> Path:
    return work.folder / "runs" / f"{name}-{layout}".replace(" ", "_")


@pytest.mark.parametrize("name", MIXTURES)
def test_every_mixture(name: str, trained: Workspace, losses: Losses) -> None:
    expected = addends(MIXTURES[name], losses)
    assert len(expected) == 8  # three subsets of two languages, two of the third
    run = run_of(trained, name, "1")
    assert largest_difference(run, expected) <= TOLERANCE
    assert len(metric_rows(run)) == read_json(run / "identity.json")["steps"]
    record = read_json(run / "blend.json")
    assert record["never_drawn"] == 0
    parts = [s["quota"] < s["rows"] for s in record["sets"]]
    assert any(parts) == (name in ("temperature", "numbers", "token", "sum")), "an epoch goes through all of a set"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout: str, trained: Workspace, losses: Losses) -> None:
    expected = addends(MIXTURES[IN_ALL_LAYOUTS], losses)
    assert largest_difference(run_of(trained, IN_ALL_LAYOUTS, layout), expected) <= TOLERANCE


def test_the_weights_are_needed(losses: Losses) -> None:
    """Eq. 6 without the weights of samples, of languages or of subsets is far away: the identity is no accident."""
    plain = sum(addends(MIXTURES["proportional"], losses).values())
    for name in ("temperature", "numbers"):
        assert abs(sum(addends(MIXTURES[name], losses).values()) - plain) > 1000 * TOLERANCE * plain


def test_a_blend_goes_on_in_another_layout(trained: Workspace) -> None:
    """Interrupted after step 4 of 8: in the same layout the same bits, in another one the same numbers."""
    more = f"{trained.blend(MIXTURES[IN_ALL_LAYOUTS])} optim.lr=1e-3 trainer.max_steps=8 trainer.keep_checkpoints=9"
    runs = trained.folder / "runs"
    trained.train(2, {"straight": f"{more} trainer.tp=2 trainer.save_every=4"})
    for name in ("same", "other"):
        (runs / name / "checkpoints").mkdir(parents=True)
        shutil.copytree(runs / "straight/checkpoints/step-000004", runs / name / "checkpoints/step-000004")
        for file in ("identity.json", "metrics.jsonl"):
            shutil.copy(runs / "straight" / file, runs / name / file)
    trained.train(2, {"same": f"{more} trainer.tp=2", "other": f"{more} trainer.pp=2"})
    expected = metric_rows(runs / "straight")
    assert metric_rows(runs / "same") == expected and len(expected) == 8
    found = metric_rows(runs / "other")
    for key in ("loss", "grad_norm", "tokens", "loss_mt.eng-kor"):
        assert [r[key] for r in found] == pytest.approx([r[key] for r in expected], rel=2e-5), key
