"""At which norm gradients are clipped, what rows and run say of it, which runs a folder takes; the clock of a step."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import LlamaConfig

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.common.run_facts import clipped_of
from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.data.packing.packed import PackedDataset, PackedWriter, TokenizedSample
from sdrrl_nemo.train import run_dir
from sdrrl_nemo.train.batches import MicroBatches
from sdrrl_nemo.train.callbacks import metrics as module
from sdrrl_nemo.train.callbacks.metrics import Speed, StepMetrics, read_metrics
from sdrrl_nemo.train.config import OptimSettings, RunConfig
from sdrrl_nemo.train.preparation import micro_batches
from sdrrl_nemo.train.schedule import resolve
from sdrrl_nemo.train.strategy import SdrrlStrategy
from tests.tiny_weights import tiny_folder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def dataset(tmp_path: Path) -> PackedDataset:
    """Two subsets with a sample each; the four others are empty."""
    writer = PackedWriter(tmp_path / "data", "train", vocab_size=100, seq_length=8)
    for key, subset in ((1, "LL"), (2, "TT")):
        mask = np.asarray([0, 1, 1], np.uint8)
        writer.add_pack([TokenizedSample(f"{key:016x}", subset, np.asarray([1, 2, 3], np.int32), mask)])
    writer.finish({"tokenizer_sha256": "0" * 64})
    return PackedDataset(tmp_path / "data")


def config_of(tmp_path: Path) -> RunConfig:
    config = RunConfig(run_dir=str(tmp_path / "run"))
    config.model.hf_path, config.data.path = str(tiny_folder(tmp_path / "m")), "d"
    return config


def batches_of(config: RunConfig, dataset: PackedDataset) -> MicroBatches:
    return micro_batches(config, dataset)


@pytest.mark.parametrize(("normalise", "auto"), [("sum", 2.0), ("mean", 1.0)])
def test_auto_is_one_for_each_unit_of_weight_and_a_number_means_itself(
    tmp_path: Path, dataset: PackedDataset, normalise: str, auto: float
) -> None:
    config = config_of(tmp_path)
    config.loss.normalise = normalise
    batches = batches_of(config, dataset)
    assert resolve(OptimSettings(), batches, 9).clip_grad == auto
    for number in (0, 1, 2.5):
        assert resolve(OptimSettings(clip_grad=number), batches, 9).clip_grad == number


@pytest.mark.parametrize(
    ("clip_grad", "norm", "skip", "clipped"),
    [
        (2.0, 1.999, False, False),
        (2.0, 2.0, False, False),
        (2.0, math.nextafter(2.0, 3.0), False, True),
        (2.0, 50.0, False, True),
        (2.0, 50.0, True, False),  # a step that is not taken is not clipped either
        (2.0, math.nan, True, False),
        (0.0, 50.0, False, False),  # 0: never
    ],
)
def test_a_step_is_clipped_exactly_where_its_norm_is_over_clip_grad(
    clip_grad: float, norm: float, skip: bool, clipped: bool
) -> None:
    strategy: Any = SimpleNamespace(
        clip_grad=clip_grad,
        trainer=SimpleNamespace(global_step=0),
        guard=SimpleNamespace(judge=lambda *_: skip),
        metrics={"vector": torch.ones(1), "micro_losses": None},
    )
    assert SdrrlStrategy._must_skip(strategy, norm) is skip
    assert strategy.metrics["clipped"] is clipped


def test_clipped_steps_are_counted_among_the_steps_taken() -> None:
    rows = [
        {"step": 1},  # of a version that did not say so
        {"clipped": True, "skipped": False},
        {"clipped": False, "skipped": True},
        {"clipped": False, "skipped": False},
        {"clipped": True, "skipped": False},
    ]
    assert clipped_of(rows) == (2, 3)
    assert clipped_of([]) == (0, 0)


def test_a_run_says_at_its_end_how_many_steps_were_clipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(tmp_path)
    folder = Path(config.run_dir)
    folder.mkdir()
    write_json(folder / "identity.json", {"optim": {"clip_grad": 6.0}})
    rows = [{"step": i, "clipped": i < 2, "skipped": False} for i in range(1, 5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    run_dir.finish(config, 4, None, interrupted=False)
    assert "gradients clipped at norm 6: 1 of 4 steps (25%)" in capsys.readouterr().out
    assert read_json(folder / "finished.json")["clipped_share"] == 0.25
    write_json(folder / "identity.json", {"optim": {"clip_grad": 0.0}})
    run_dir.finish(config, 4, None, interrupted=False)
    assert "gradients clipped never (optim.clip_grad: 0)\n" in capsys.readouterr().out
    (folder / "metrics.jsonl").unlink()  # a run that was at its end before it began
    run_dir.finish(config, 4, None, interrupted=False)
    assert "clipped_share" not in read_json(folder / "finished.json")


def test_a_model_is_what_its_files_hold_wherever_they_lie(tmp_path: Path, dataset: PackedDataset) -> None:
    config = config_of(tmp_path)
    batches = batches_of(config, dataset)
    run_dir.claim(config, batches, 9)
    identity = Path(config.run_dir) / "identity.json"
    moved = Path(config.model.hf_path).rename(tmp_path / "moved")
    config.model.hf_path = str(moved)
    run_dir.claim(config, batches, 9)
    write_json(identity, {**read_json(identity), "model": str(moved)})  # an earlier version wrote the path
    run_dir.claim(config, batches, 9)
    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")  # the last byte of one weight
    with pytest.raises(SdrrlError, match=r"other settings \(model: [0-9a-f]{16} there, [0-9a-f]{16} here\)"):
        run_dir.claim(config, batches, 9)


def test_a_folder_takes_the_run_it_holds_and_no_other(tmp_path: Path, dataset: PackedDataset) -> None:
    config = config_of(tmp_path)
    batches = batches_of(config, dataset)
    run_dir.claim(config, batches, 9)
    run_dir.claim(config, batches, 9)
    config.optim.clip_grad = 2  # what auto is here: the same run
    run_dir.claim(config, batches, 9)
    config.optim.clip_grad = 1.0
    with pytest.raises(SdrrlError, match=r"other settings \(optim.clip_grad: 2.0 there, 1.0 here\); set them as they"):
        run_dir.claim(config, batches, 9)
    config.optim.clip_grad, config.loss.normalise = 2.0, "mean"
    with pytest.raises(SdrrlError, match=r"other settings \(loss.normalise: sum there, mean here\)"):
        run_dir.claim(config, batches, 9)
    config.loss.normalise, config.seed = "sum", 5
    with pytest.raises(SdrrlError, match=r"other settings \(seed: 1234 there, 5 here\)"):
        run_dir.claim(config, batches, 9)


def test_a_folder_of_an_earlier_version_goes_on_where_nothing_changed(tmp_path: Path, dataset: PackedDataset) -> None:
    """Its identity lacks loss.normalise; its runs were clipped at 1.0 unless told otherwise."""
    config = config_of(tmp_path)
    config.optim.clip_grad = 1.0
    batches = batches_of(config, dataset)
    run_dir.claim(config, batches, 9)
    path = run_dir.identity_file(config)
    old = read_json(path)
    del old["loss"]["normalise"]
    write_json(path, old)
    config.optim.clip_grad = "auto"
    with pytest.raises(SdrrlError, match=r"other settings \(optim.clip_grad: 1.0 there, 2.0 here\)"):
        run_dir.claim(config, batches, 9)
    config.optim.clip_grad, config.loss.normalise = 1.0, "mean"
    with pytest.raises(SdrrlError, match=r"\(loss.normalise: sum there, mean here\)"):
        run_dir.claim(config, batches, 9)
    assert read_json(path) == old
    config.loss.normalise = "sum"
    run_dir.claim(config, batches, 9)
    assert read_json(path)["loss"]["normalise"] == "sum"


def test_data_are_named_as_a_whole_and_hashes_are_left_out() -> None:
    before = {"data": {"a": {"sha256": "0" * 64}}, "lora": {"base": "0" * 64, "rank": 8}}
    here = {"data": {"a": {"sha256": "1" * 64}}, "lora": {"base": "1" * 64, "rank": 16}}
    assert run_dir.differences(before, here) == ["data", "lora.base", "lora.rank: 8 there, 16 here"]


def documented_keys() -> dict[str, str]:
    """Key -> unit, of the table of docs/training.md."""
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    section = text.split("## Rows of metrics.jsonl\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE))


def test_the_documentation_has_every_key_of_a_row_with_its_unit(tmp_path: Path, dataset: PackedDataset) -> None:
    batches = batches_of(config_of(tmp_path), dataset)
    shape = ModelShape.of(LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1))
    rows: Any = StepMetrics(str(tmp_path), ["LL"], Speed(batches, shape, ranks=1))
    made: dict[str, Any] = {"vector": torch.ones(2), "lr": 0.0, "grad_norm": 1.0, "clipped": False, "skipped": False}
    trainer: Any = SimpleNamespace(is_global_zero=True, global_step=0, max_steps=1, loggers=[])
    trainer.strategy = SimpleNamespace(metrics=made)
    rows.on_train_start(trainer, None)
    rows.on_train_batch_start(trainer)
    trainer.global_step = 1
    rows.on_train_batch_end(trainer)
    rows.on_train_end(trainer, None)
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    units = documented_keys()
    assert list(units) == [k.replace("loss_LL", "loss_<subset>") for k in row]
    assert all(unit.strip() for unit in units.values())


class Clock:
    """Stands still but for what is done on it."""

    def __init__(self) -> None:
        self.time = 0.0

    def perf_counter(self) -> float:
        return self.time


class OneWeight(pl.LightningModule):
    """A step takes two seconds of the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.weight, self.clock = torch.nn.Parameter(torch.ones(1)), clock

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.clock.time += 2.0
        return self.weight.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class SlowCallback(pl.Callback):
    """Evaluates or saves for a hundred seconds after each step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.clock.time += 100.0


class OnlySeconds:
    """Speed without a model: seven tokens a step."""

    batches = SimpleNamespace(useful_tokens=lambda step: 7, live_share=lambda step: 0.5)

    def of(self, step: int, seconds: float) -> dict[str, float | None]:
        return {"seconds": seconds, "tokens_per_second": 7 / seconds, "mfu": None}


@pytest.mark.parametrize("slow_first", [False, True])
def test_evaluation_and_checkpoints_are_in_no_steps_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_first: bool
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    rows: Any = StepMetrics(str(tmp_path), ["LL"], OnlySeconds())  # type: ignore[arg-type]
    slow = SlowCallback(clock)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=3, logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=False, callbacks=[rows, slow],
    )  # fmt: skip
    if slow_first:  # before the first step, too
        slow.on_train_start = lambda *_: setattr(clock, "time", 50.0)  # type: ignore[method-assign]
    fixed: dict[str, Any] = {"lr": 0.0, "grad_norm": 1.0, "clipped": False, "skipped": False}
    trainer.strategy.metrics = fixed | {"vector": torch.ones(2)}  # type: ignore[attr-defined]
    trainer.fit(OneWeight(clock), DataLoader([torch.zeros(1)] * 3))  # type: ignore[arg-type]
    found = read_metrics(tmp_path / "metrics.jsonl")
    assert [(r["step"], r["seconds"], r["tokens_per_second"]) for r in found] == [(k, 2.0, 3.5) for k in (1, 2, 3)]
    assert [r["clipped"] for r in found] == [False] * 3
    assert clock.time == 3 * 102 + (50 if slow_first else 0)


def test_the_flag_is_read_only_where_the_loss_is_nan() -> None:
    asked: list[int] = []
    strategy = SimpleNamespace(
        metrics={"vector": torch.ones(2), "micro_losses": None},
        trainer=SimpleNamespace(global_step=4),
        lightning_module=SimpleNamespace(label_flag=SimpleNamespace(require_none=asked.append)),
        guard=SimpleNamespace(judge=lambda *_: False),
        clip_grad=0.0,
    )
    SdrrlStrategy._must_skip(strategy, 1.0)
    assert asked == []
    strategy.metrics["vector"] = torch.tensor([float("nan"), 1.0])
    SdrrlStrategy._must_skip(strategy, 1.0)
    assert asked == [5]
