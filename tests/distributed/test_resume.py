"""kill -9 in the middle of training; the same command continues and every loss is equal bit for bit."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests import warm
from tests.runs import metric_rows, steps_done
from tests.tiny import packed_set, tiny_model
from tests.tiny_tokenizer import ROWS, TOKENS


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    model = tiny_model(folder / "model")
    packed_set(folder / "data", model)
    settings = {
        "run_dir": "unset",
        "model": {"hf_path": str(model), "pad_heads_to": 2},
        "data": {"path": str(folder / "data")},
        "trainer": {"tp": 2, "precision": "bf16", "global_batch_size": 4, "max_steps": 14, "save_every": 3},
        "optim": {"lr": 1.0e-3, "warmup_steps": 2, "weight_decay": 0.1},
    }
    settings["trainer"]["num_threads"] = 1
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def _killed_after(run: Path, config: Path, steps: int) -> None:
    """Start the recipe and SIGKILL its ranks at once when ``steps`` steps are logged."""
    with warm.start(2, "recipes/sdrrl_pretrain.py", "--config", str(config), f"run_dir={run}") as ranks:
        deadline = time.monotonic() + 300
        while steps_done(run) < steps:
            assert ranks.running(), ranks.text()[-4000:]
            assert time.monotonic() < deadline, "no progress in five minutes"
            time.sleep(0.01)
        ranks.kill()


def test_killed_and_uninterrupted_runs_agree(config: Path, tmp_path: Path) -> None:
    straight = tmp_path / "straight"
    done = warm.torchrun(2, "recipes/sdrrl_pretrain.py", "--config", str(config), f"run_dir={straight}")
    assert done.returncode == 0, done.stdout[-4000:]
    killed = tmp_path / "killed"
    _killed_after(killed, config, 5)
    assert len(metric_rows(killed)) < 14
    done = warm.torchrun(2, "recipes/sdrrl_pretrain.py", "--config", str(config), f"run_dir={killed}")
    assert done.returncode == 0, done.stdout[-4000:]
    assert metric_rows(killed) == metric_rows(straight)
    assert len(metric_rows(straight)) == 14
    assert metric_rows(straight)[-1]["loss"] != metric_rows(straight)[0]["loss"]
    assert not list((killed / "checkpoints").glob("unfinished-*"))
    for run in (straight, killed):
        done = warm.python("tools/export_hf.py", "--run", str(run), "--output", str(run / "hf"))
        assert done.returncode == 0, done.stdout[-4000:]
    assert (straight / "hf/model.safetensors").read_bytes() == (killed / "hf/model.safetensors").read_bytes()
    _rows_that_are_no_tokens_keep_their_bits(config.parent / "model", straight / "hf")
    # and a third start has nothing left to do; the model is known by its content, wherever its folder lies
    moved = shutil.copytree(config.parent / "model", tmp_path / "staged")
    words = ["--config", str(config), f"run_dir={killed}", f"model.hf_path={moved}"]
    again = warm.torchrun(2, "recipes/sdrrl_pretrain.py", *words)
    assert again.returncode == 0
    assert "all 14 steps are done" in again.stdout
    assert torch.load(_newest(killed) / "weights/common.pt", weights_only=False)["global_step"] == 14


def _rows_that_are_no_tokens_keep_their_bits(base: Path, exported: Path) -> None:
    """Weight decay and bf16 touched them in training; the rows of tokens have changed."""
    before, after = (load_file(f / "model.safetensors")["model.embed_tokens.weight"] for f in (base, exported))
    assert before.dtype == after.dtype == torch.float32  # the base folder's own, though the run was in bf16
    assert torch.equal(before[TOKENS:], after[TOKENS:]) and len(before) == ROWS > TOKENS
    assert not torch.equal(before[:TOKENS], after[:TOKENS])


def _newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))
