"""--dry-run: the plan of a run without running it, and the same refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.train.config import RunConfig
from tests.tiny import packed_set, tiny_model


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("dry")
    config = RunConfig(run_dir=str(folder / "run"))
    config.model.hf_path = str(tiny_model(folder / "model"))
    config.data.path = str(packed_set(folder / "data", folder / "model"))
    config.trainer.epochs = 4
    config.optim.lr = "auto"
    return config


def test_the_plan_says_what_will_run(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    from sdrrl_nemo.train.dry_run import dry_run, lines
    from sdrrl_nemo.train.preparation import read_inputs
    from sdrrl_nemo.train.schedule import resolve

    config.trainer.pp = 2
    dry_run(config, processes=8)
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    run = read_inputs(config, 8)
    assert said["processes"] == "8 = TP 1 x PP 2 x CP 1 x DP 4 (VPP 1)"
    assert said["steps"] == f"{run.steps} ({run.batches.schedule.steps_per_epoch} an epoch, 4.00 epochs)"
    assert f"{resolve(config.optim, run.batches, run.steps).lr:.3g}" in " ".join(said.values())
    assert said["layers"].startswith("local layers, packed rows by torch's attention, sample by sample (sdpa)")
    assert said["loader"] == "4 micro-batches made ahead"
    assert said["gradients"] == "clipped at norm 6"  # six subsets
    config.loss.kernel, rows = "fused_linear", run.batches.row_shape[0] * run.batches.row_shape[1]
    everything = 2 * rows * run.hf.vocab_size / 2**20  # fewer rows than the least chunk has
    found = dict(lines(config, run, 8))["logits at a time"]
    config.loss.kernel = "auto"
    assert found == f"at most {everything:.1f} MiB on a GPU, {everything:.1f} MiB on a CPU"
    assert "logits at a time" not in dict(lines(config, run, 8))
    assert not Path(config.run_dir).exists()


def test_it_refuses_what_training_refuses(config: RunConfig) -> None:
    from sdrrl_nemo.train.dry_run import dry_run

    config.trainer.pp = 3
    with pytest.raises(SdrrlError, match="does not divide the 8 processes"):
        dry_run(config, processes=8)
    with pytest.raises(SdrrlError, match="pipeline_model_parallel_size=3 does not divide the 4 layers"):
        dry_run(config, processes=3)
    config.trainer.pp = 1


def test_one_packed_set_may_have_an_objective(config: RunConfig) -> None:
    from sdrrl_nemo.train.preparation import read_inputs

    config.trainer.pp = 1
    plain = read_inputs(config, 1).batches
    config.data.objective = {"TT": 0.5, "m*": 2.0}
    weighted = read_inputs(config, 1).batches
    config.data.objective = {}
    factors = {"TT": 0.5, "mt": 2.0}
    expected = [factors.get(plain.dataset.subset_names[d], 1.0) for d in plain.dataset.subset]
    assert (weighted.weights / plain.weights).tolist() == pytest.approx(expected)
    assert (plain.step_weight(), weighted.step_weight()) == (6, 6.5)
