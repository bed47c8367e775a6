"""How a run ends: early stopping on exact held-out Eq. 6, skipped steps, SIGTERM, a damaged checkpoint."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from sdrrl_nemo.data.packing.packed import PackedDataset
from sdrrl_nemo.data.text.tokenizer import load_tokenizer, tokenizer_sha256
from tests.eq6 import eq6_float64, samples_of
from tests.runs import metric_rows
from tests.tiny import packed_set, tiny_model
from tests.warm import asked_to_end, torchrun

RECIPE = "recipes/sdrrl_pretrain.py"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("control")
    model = tiny_model(folder / "model")
    packed_set(folder / "data", model)
    settings = {
        "run_dir": "unset",
        "model": {"hf_path": str(model)},
        "data": {"path": str(folder / "data")},
        "trainer": {"precision": "fp32", "global_batch_size": 4, "max_steps": 9, "num_threads": 1},
        "optim": {"lr": 1.0e-3},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_early_stopping_on_exact_held_out_loss(config: Path, tmp_path: Path) -> None:
    """At learning rate 0 nothing improves: two evaluations, then the end; each is Eq. 6 in float64."""
    run = tmp_path / "run"
    overrides = [f"run_dir={run}", "optim.lr=0", "data.validation=train", "validation.every=2", "validation.patience=1"]
    done = torchrun(2, RECIPE, "--config", str(config), *overrides)
    assert done.returncode == 0, done.stdout[-4000:]
    evaluations = rows(run / "validation.jsonl")
    assert [e["step"] for e in evaluations] == [2, 4]
    folder = config.parent
    data = PackedDataset(folder / "data", "train", tokenizer_sha256(load_tokenizer(folder / "model")))
    loss, addends = eq6_float64(folder / "model", samples_of(data))
    for e in evaluations:
        assert e["loss"] == pytest.approx(loss, rel=1e-5)
        assert {k: e[f"loss_{k}"] for k in addends} == pytest.approx(addends, rel=1e-5)
    end = json.loads((run / "finished.json").read_text())
    assert (end["step"], end["best_step"], end["reason"]) == (4, 2, "no better held-out loss")
    kept = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert kept == ["step-000002", "step-000004"]
    again = torchrun(2, RECIPE, "--config", str(config), *overrides)
    assert again.returncode == 0
    assert "all 4 steps are done (no better held-out loss)" in again.stdout


def test_spikes_are_skipped_and_end_the_run(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = [f"run_dir={run}", "spikes.factor=1e-6", "spikes.warmup=1", "spikes.max_in_a_row=2"]
    done = torchrun(2, RECIPE, "--config", str(config), *overrides)
    assert done.returncode != 0
    said = [line for line in done.stdout.splitlines() if "steps in a row were skipped" in line]
    assert said
    assert "sdrrl_nemo/train" not in done.stdout.replace(said[0], "")  # no stack trace of ours
    skipped = rows(run / "skipped.jsonl")
    assert [s["step"] for s in skipped] == [2, 3]
    assert {m["data_parallel_rank"] for m in skipped[0]["micro_batches"]} == {0, 1}
    assert sum(len(m["samples"]) for m in skipped[0]["micro_batches"]) >= 4
    assert [r["skipped"] for r in rows(run / "metrics.jsonl")] == [False, True]


def test_sigterm_saves_and_a_flipped_byte_falls_back(config: Path, tmp_path: Path) -> None:
    straight = tmp_path / "straight"
    plain = ["trainer.save_every=3", "trainer.keep_checkpoints=9"]
    if importlib.util.find_spec("wandb"):
        plain += ["wandb.project=sdrrl", "wandb.offline=true"]
    done = torchrun(1, RECIPE, "--config", str(config), f"run_dir={straight}", *plain)
    assert done.returncode == 0, done.stdout[-4000:]
    assert bool(list((straight / "wandb").glob("offline-run-*"))) == bool(importlib.util.find_spec("wandb"))
    speeds = [r["tokens_per_second"] for r in rows(straight / "metrics.jsonl")]
    assert all(r["tokens"] / r["seconds"] == s for r, s in zip(rows(straight / "metrics.jsonl"), speeds, strict=True))
    run = tmp_path / "run"
    asked_to_end(1, RECIPE, config, run, 4, *plain)
    saved = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert len(saved) == 2
    newest = run / "checkpoints" / saved[-1]
    victim = max((p for p in newest.rglob("*.distcp")), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    done = torchrun(1, RECIPE, "--config", str(config), f"run_dir={run}", *plain)
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{victim} is damaged" in done.stdout
    assert metric_rows(run) == metric_rows(straight)


def test_asynchronous_checkpoints_of_the_distributed_optimizer(config: Path, tmp_path: Path) -> None:
    """A resume from one has the same bits, down to the tensor files of the checkpoint that it writes itself."""
    options = ["optim.use_distributed_optimizer=true", "trainer.async_checkpoints=true"]
    options += ["trainer.save_every=4", "trainer.keep_checkpoints=9"]
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    done = torchrun(2, RECIPE, "--config", str(config), f"run_dir={straight}", *options)
    assert done.returncode == 0, done.stdout[-4000:]
    names = ["step-000004", "step-000008", "step-000009"]
    assert sorted(p.name for p in (straight / "checkpoints").iterdir()) == names
    shutil.copytree(straight / "checkpoints" / names[0], resumed / "checkpoints" / names[0])
    for name in ("identity.json", "metrics.jsonl"):
        shutil.copy(straight / name, resumed / name)
    done = torchrun(2, RECIPE, "--config", str(config), f"run_dir={resumed}", *options)
    assert done.returncode == 0, done.stdout[-4000:]
    assert metric_rows(resumed) == metric_rows(straight)
    tensors = [
        {
            k: v
            for k, v in json.loads((run / "checkpoints" / names[-1] / "sha256.json").read_text()).items()
            if "__" in k
        }
        for run in (straight, resumed)
    ]
    assert tensors[0] == tensors[1] and len(tensors[0]) >= 2
