"""Learning-rate schedule, configuration errors, checkpoint folder rules."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.train.callbacks.checkpoint import complete_checkpoints, remove_unfinished
from sdrrl_nemo.train.callbacks.metrics import Speed, StepMetrics, read_metrics, truncate_metrics
from sdrrl_nemo.train.config import OptimSettings, RunConfig, check, checkpoint_name
from sdrrl_nemo.train.schedule import learning_rate


def _config(tmp_path: Path, *overrides: str) -> RunConfig:
    path = tmp_path / "c.yaml"
    path.write_text("run_dir: r\nmodel: {hf_path: m}\ndata: {path: d}\n")
    return load_config(RunConfig, path, overrides)


def test_learning_rate() -> None:
    o = OptimSettings(lr=1.0, min_lr=0.1, warmup_steps=4, schedule="cosine")
    assert [learning_rate(o, s, 20) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(o, 4, 20) == 1.0
    assert learning_rate(o, 12, 20) == pytest.approx(0.55)
    assert learning_rate(o, 20, 20) == pytest.approx(0.1)
    linear = OptimSettings(lr=1.0, schedule="linear")
    assert [learning_rate(linear, s, 4) for s in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert learning_rate(OptimSettings(lr=0.5, schedule="constant"), 99, 100) == 0.5


@pytest.mark.parametrize(
    ("override", "world", "message"),
    [
        ("trainer.precision=fp64", 1, "trainer.precision: 'fp64' is not one of bf16, fp32, auto"),
        ("optim.schedule=step", 1, "optim.schedule"),
        ("trainer.tp=2", 3, "does not divide the 3 processes"),
        ("trainer.micro_batch_size=3", 1, "trainer.global_batch_size=8 is not a multiple"),
        ("trainer.micro_batch_size=0", 1, "trainer.micro_batch_size: must be at least 1"),
        ("trainer.epochs=0", 1, "trainer.epochs must be positive"),
        ("loss.normalise=max", 1, "loss.normalise: 'max' is not one of sum, mean"),
        ("loss.normalise=mean loss.sample_reduction=step", 1, "loss.normalise: mean divides the sum over subsets"),
        ("loss.chunk_mib=0 loss.kernel=fused_linear", 1, "loss.chunk_mib: must be a positive number of MiB"),
        ("loss.chunk_mib=64", 1, "goes with loss.kernel=fused_linear alone; is 64 with loss.kernel=auto"),
        ("optim.clip_grad=none", 1, "optim.clip_grad: 'none' is neither a number nor 'auto'"),
        ("optim.clip_grad=-1", 1, r"optim.clip_grad: must be a finite number .* is -1"),
        ("optim.clip_grad=.inf", 1, "optim.clip_grad: must be a finite number"),
        ("optim.clip_grad=.nan", 1, "optim.clip_grad: must be a finite number"),
    ],
)
def test_bad_settings(tmp_path: Path, override: str, world: int, message: str) -> None:
    with pytest.raises(SdrrlError, match=message):
        check(_config(tmp_path, *override.split()), world)


def test_data_parallel_size(tmp_path: Path) -> None:
    assert check(_config(tmp_path, "trainer.tp=2"), 4) == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.micro_batchsize=2", "did you mean 'trainer.micro_batch_size'"),
        ("traner.tp=2", "unknown key"),
        ("trainer.tp=two", "trainer.tp"),
        ("tp", "not of the form key=value"),
    ],
)
def test_bad_override(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(SdrrlError, match=message) as caught:
        _config(tmp_path, override)
    assert "\n" not in str(caught.value)


def test_checkpoint_folder(tmp_path: Path) -> None:
    for name in (checkpoint_name(20), checkpoint_name(3), "unfinished-step-000040", "step-7", "notes"):
        (tmp_path / name).mkdir()
    assert [s for s, _ in complete_checkpoints(tmp_path)] == [3, 20]
    remove_unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes", "step-000003", "step-000020", "step-7"]
    assert complete_checkpoints(tmp_path / "none") == []


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s}) + "\n" for s in range(1, 6)) + '{"step": 6, "lo')
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4, 5]  # a resume reads before it cuts
    truncate_metrics(path, 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
    truncate_metrics(tmp_path / "absent.jsonl", 3)


def test_a_resume_forgets_the_skipped_steps_that_it_takes_again(tmp_path: Path) -> None:
    for name in ("metrics.jsonl", "skipped.jsonl"):
        (tmp_path / name).write_text('{"step": 2}\n{"step": 3}\n')
    speed = Speed.__new__(Speed)  # what a start does not ask
    metrics = StepMetrics(str(tmp_path), ["LL"], speed)
    trainer: Any = SimpleNamespace(is_global_zero=True, global_step=2, max_steps=4)
    metrics.on_train_start(trainer, None)
    metrics._file.close()
    for name in ("metrics.jsonl", "skipped.jsonl"):
        assert (tmp_path / name).read_text() == '{"step": 2}\n'
