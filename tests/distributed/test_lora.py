"""LoRA through the recipe: the base model at the start, equal in every layout, resumed bit for bit, merged at export.

The vocabulary of one run is an expanded one, trained whole at TP=2 and exported.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.fileio import read_json
from tests.runs import metric_rows
from tests.tiny import packed_set, tiny_model
from tests.tiny_tokenizer import TOKENS
from tests.warm import python, torchrun
from tools.expand_vocab import main as expand_vocab

RANK, ALPHA, STEPS = 4, 8.0, 6
TARGETS = ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")
WORKER = "tests/distributed/fit_worker.py"
NEW_WORDS = ("informação", "coração", "constituição")[: 3 - TOKENS % 2]
"""So many that tensor parallelism has to pad the table."""


def _settings(folder: Path) -> dict[str, Any]:
    return {
        "run_dir": "unset",
        "model": {"hf_path": str(folder / "model"), "pad_heads_to": 2},
        "data": {"path": str(folder / "data")},
        "trainer": {"precision": "fp32", "global_batch_size": 4, "max_steps": STEPS, "save_every": 3, "num_threads": 1},
        "optim": {"lr": 2.0e-3, "weight_decay": 0.1},
        "lora": {"rank": RANK, "alpha": ALPHA},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run, its resumption and the exports; processes are started once for each kind."""
    folder = tmp_path_factory.mktemp("lora")
    packed_set(folder / "data", tiny_model(folder / "model", layers=2))
    exact = tiny_model(folder / "exact", layers=2, rows=TOKENS)  # no spare row, so that the expansion adds rows
    (folder / "words.txt").write_text("\n".join(NEW_WORDS) + "\n", encoding="utf-8")
    expanded = folder / "expanded"
    args = ["--model", str(exact), "--output", str(expanded), "--words", str(folder / "words.txt")]
    assert run(expand_vocab, args) == 0
    packed_set(folder / "expanded-data", expanded)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(_settings(folder)))
    one = [f"run_dir={folder}/base lora.rank=0 optim.lr=0.0", f"run_dir={folder}/tp1"]
    dropout = f"run_dir={folder}/straight trainer.tp=2 trainer.precision=bf16 lora.dropout=0.2"
    two = [
        f"run_dir={folder}/tp2 trainer.tp=2 trainer.sequence_parallel=true",
        f"run_dir={folder}/pp2 trainer.pp=2",
        f"run_dir={folder}/dp2 optim.use_distributed_optimizer=true",
        dropout,
        f"run_dir={folder}/words trainer.tp=2 lora.rank=0 model.hf_path={expanded} data.path={expanded}-data",
    ]
    _fit(1, config, one)
    _fit(2, config, two)
    _forget_second_half(folder / "straight", folder / "resumed")
    _fit(2, config, [dropout.replace("straight", "resumed")])
    _export(folder)
    return folder


def _fit(processes: int, config: Path, runs: list[str]) -> None:
    done = torchrun(processes, WORKER, str(config), *runs)
    assert done.returncode == 0, done.stdout[-4000:]


def _forget_second_half(run_dir: Path, copy: Path) -> None:
    """What a kill between the two checkpoints leaves."""
    shutil.copytree(run_dir, copy)
    (copy / "finished.json").unlink()
    shutil.rmtree(copy / "checkpoints" / f"step-{STEPS:06d}")


def _export(folder: Path) -> None:
    jobs: list[str] = []
    for name in ("tp2", "pp2", "straight", "resumed", "words"):
        base = "expanded" if name == "words" else "model"
        jobs += [str(_checkpoint(folder, name)), str(folder / base), str(folder / f"{name}-hf")]
    jobs += [str(_checkpoint(folder, "tp1")), str(folder / "expanded"), str(folder / "wrong-base")]
    done = python("tests/distributed/export_worker.py", *jobs)
    assert done.returncode == 0, done.stdout[-4000:]
    (folder / "export.log").write_text(done.stdout)


def _checkpoint(folder: Path, name: str) -> Path:
    return folder / name / "checkpoints" / f"step-{STEPS:06d}"


def _state(folder: Path, name: str) -> dict[str, Tensor]:
    """Every tensor of a run's last checkpoint, whole."""
    state: dict[str, Tensor] = torch.load(folder / f"{name}-hf.pt")
    return state


def test_it_starts_as_the_base_model_and_learns(folder: Path) -> None:
    """``base`` has all weights trainable and a learning rate of 0."""
    base, lora = metric_rows(folder / "base"), metric_rows(folder / "tp1")
    assert lora[0]["loss"] == base[0]["loss"]
    assert lora[0]["grad_norm"] < base[0]["grad_norm"]
    assert sum(r["loss"] for r in lora[3:]) < sum(r["loss"] for r in base[3:])


@pytest.mark.parametrize("layout", ["tp2", "pp2", "dp2"])
def test_layouts_agree(layout: str, folder: Path) -> None:
    one, other = metric_rows(folder / "tp1"), metric_rows(folder / layout)
    assert len(one) == len(other) == STEPS
    for a, b in zip(one, other, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-5)


def test_dropout_acts_and_is_drawn_again_after_a_resume(folder: Path) -> None:
    straight, resumed = folder / "straight", folder / "resumed"
    assert metric_rows(resumed) == metric_rows(straight)
    a, b = (_state(folder, name) for name in ("straight", "resumed"))
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name
    assert metric_rows(straight)[-1]["loss"] != pytest.approx(metric_rows(folder / "tp2")[-1]["loss"], rel=1e-4)


def test_checkpoints_hold_adapters_alone(folder: Path) -> None:
    tensors = _state(folder, "straight")
    models = {k: v for k, v in tensors.items() if k.startswith("module.")}
    assert all(".adapter." in k for k in models)
    assert not any("word_embeddings" in k for k in tensors)
    layers, hidden, feed_forward, head, heads, groups = 2, 72, 96, 8, 12, 4  # a zero head a group was added
    wide = {
        "linear_qkv": hidden + (heads + 2 * groups) * head,
        "linear_proj": heads * head + hidden,
        "linear_fc1": hidden + 2 * feed_forward,
        "linear_fc2": feed_forward + hidden,
    }
    assert sum(v.numel() for v in models.values()) == layers * RANK * sum(wide.values())
    size = sum(p.stat().st_size for p in _checkpoint(folder, "straight").rglob("*") if p.is_file())
    whole = (folder / "model" / "model.safetensors").stat().st_size
    # so tiny a checkpoint is mostly what Megatron writes around its tensors
    assert sum(v.nbytes for v in tensors.values()) < 0.2 * whole and size < whole


@pytest.mark.parametrize("name", ["tp2", "pp2", "straight"])
def test_export_is_the_base_with_merged_updates(name: str, folder: Path) -> None:
    """q, k, v and gate, up apart, from the adapters' own tensors; the exporter compared logits with Megatron's."""
    before, after = (load_file(p / "model.safetensors") for p in (folder / "model", folder / f"{name}-hf"))
    facts = read_json(folder / f"{name}-hf" / "export.json")
    assert facts["max_abs_logit_diff"] < 2e-5 and facts["compared_tokens"] > 20
    config = read_json(folder / f"{name}-hf" / "config.json")
    assert config["model_type"] == "llama" and config["num_key_value_heads"] == 3
    assert before.keys() == after.keys()
    adapted = [k for k in before if k.endswith("_proj.weight")]
    for key in before:
        assert torch.equal(before[key], after[key]) == (key not in adapted), key
    state = _state(folder, name)
    prefix = "optimizer.state.fp32_param.module." if name == "straight" else "module."
    for layer in range(2):
        updates = {}
        for target in TARGETS:
            parent = "self_attention" if target in ("linear_qkv", "linear_proj") else "mlp"
            place = f"{prefix}decoder.layers.{parent}.{target}.adapter"
            a, b = (state[f"{place}.{x}.weight"][layer].double() for x in ("linear_in", "linear_out"))
            updates[target] = ALPHA / RANK * b @ a
        qkv = updates["linear_qkv"].view(4, 5, 8, 72)  # groups, (3 queries, key, value), head size
        assert not qkv[3].any() and not updates["linear_proj"][:, 72:].any()
        gate, up = updates["linear_fc1"].chunk(2)
        expected = {
            "self_attn.q_proj": qkv[:3, :3].reshape(72, 72),
            "self_attn.k_proj": qkv[:3, 3].reshape(24, 72),
            "self_attn.v_proj": qkv[:3, 4].reshape(24, 72),
            "self_attn.o_proj": updates["linear_proj"][:, :72],
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": updates["linear_fc2"],
        }
        for part, update in expected.items():
            key = f"model.layers.{layer}.{part}.weight"
            assert update.abs().max() > 1e-4
            torch.testing.assert_close(after[key].double(), before[key].double() + update, rtol=0, atol=1e-6)


def test_other_frozen_weights_and_other_settings_are_refused(folder: Path) -> None:
    assert "wrong-base error: " in (folder / "export.log").read_text()
    assert "its LoRA adapters were trained on other weights than those in" in (folder / "export.log").read_text()
    assert not (folder / "wrong-base").exists()
    for change in ("lora.alpha=16", "lora.rank=0"):
        done = python(
            "recipes/sdrrl_pretrain.py", "--config", str(folder / "config.yaml"), f"run_dir={folder}/tp1", change
        )
        assert done.returncode == 2
        assert "holds a run with other settings (lora" in done.stdout
        assert "Traceback" not in done.stdout


def test_an_expanded_vocabulary_trains_at_tp2_and_exports(folder: Path) -> None:
    size = read_json(folder / "expanded" / "config.json")["vocab_size"]
    assert size > TOKENS and size % 2, "tensor parallelism has to pad it"
    assert len(metric_rows(folder / "words")) == STEPS
    before, after = (load_file(p / "model.safetensors") for p in (folder / "expanded", folder / "words-hf"))
    rows = "model.embed_tokens.weight"
    assert after[rows].shape == before[rows].shape == (size, 72)
    assert not torch.equal(after[rows][TOKENS:], before[rows][TOKENS:])
    assert read_json(folder / "words-hf" / "config.json")["vocab_size"] == size
    old, new = (AutoTokenizer.from_pretrained(folder / p) for p in ("model", "words-hf"))
    for word in NEW_WORDS:
        assert len(new(f" {word}").input_ids) == 1 < len(old(f" {word}").input_ids)
