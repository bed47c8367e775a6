"""Checkpoints of the distributed optimizer: nothing gathered, continued in another layout, exported from the masters.

The model has 1,031 rows, which no parallel size divides: what is padded differently in two layouts shows.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, load

from tests.runs import metric_rows
from tests.tiny import packed_set, tiny_model
from tests.tiny_tokenizer import ROWS, TOKENS
from tests.warm import python, torchrun

WORKER = "tests/distributed/fit_worker.py"
DISTRIBUTED = "optim.use_distributed_optimizer=true"
LAYERS, RANK, ALPHA = 2, 4, 8.0
RUNS = {
    "dp2": DISTRIBUTED,
    "masters-dp2": f"{DISTRIBUTED} trainer.precision=bf16",
    "masters-tp2": "trainer.tp=2 trainer.precision=bf16",
    "masters-lora": f"{DISTRIBUTED} trainer.precision=bf16 lora.rank={RANK} lora.alpha={ALPHA} optim.lr=0.01",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs and exports; one copy of ``dp2`` is continued from its middle in each other layout."""
    folder = tmp_path_factory.mktemp("optimizer")
    packed_set(folder / "data", tiny_model(folder / "model", tied=False, layers=LAYERS))
    settings = {
        "run_dir": "unset",
        "model": {"hf_path": str(folder / "model"), "pad_heads_to": 6},
        "data": {"path": str(folder / "data")},
        "trainer": {"precision": "fp32", "global_batch_size": 4, "max_steps": 4, "save_every": 2, "num_threads": 1},
        "optim": {"lr": 1.0e-3, "weight_decay": 0.1},
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    _fit(config, [f"run_dir={folder}/{name} {keys}" for name, keys in RUNS.items()])
    for name in ("dp2-tp2", "dp2-pp2", "dp2-dp2", "dp2-tp3"):
        shutil.copytree(folder / "dp2", folder / name)
        (folder / name / "finished.json").unlink()
        shutil.rmtree(folder / name / "checkpoints" / "step-000004")
    layouts = {"dp2-tp2": "trainer.tp=2", "dp2-pp2": "trainer.pp=2", "dp2-dp2": ""}
    _fit(config, [f"run_dir={folder}/{name} {DISTRIBUTED} {keys}" for name, keys in layouts.items()])
    exports = [(_last(folder / name), folder / "model", folder / f"{name}-hf") for name in RUNS]
    done = python("tests/distributed/export_worker.py", *(str(path) for job in exports for path in job))
    assert done.returncode == 0, done.stdout[-4000:]
    return folder


def _fit(config: Path, runs: list[str]) -> None:
    done = torchrun(2, WORKER, str(config), *runs)
    assert done.returncode == 0, done.stdout[-4000:]


def _last(run: Path) -> Path:
    return run / "checkpoints" / "step-000004"


def _raw(checkpoint: Path, name: str) -> Tensor:
    """A tensor as it lies in the files, flat or not, read with torch alone."""
    reader = FileSystemReader(str(checkpoint / "weights"))
    about = reader.read_metadata().state_dict_metadata[name]
    out = {name: torch.empty(about.size, dtype=about.properties.dtype)}
    load(out, storage_reader=reader, no_dist=True)
    return out[name]


def _distcp(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in _last(run).rglob("*.distcp")}


def test_the_same_layout_goes_on_bit_for_bit(folder: Path) -> None:
    assert metric_rows(folder / "dp2-dp2") == metric_rows(folder / "dp2")
    assert _distcp(folder / "dp2-dp2") == _distcp(folder / "dp2")


@pytest.mark.parametrize("name", ["dp2-tp2", "dp2-pp2"])
def test_another_layout_goes_on(folder: Path, name: str) -> None:
    straight, continued = metric_rows(folder / "dp2"), metric_rows(folder / name)
    assert [r["step"] for r in continued] == [1, 2, 3, 4]
    for key in ("loss", "grad_norm"):
        assert [r[key] for r in continued] == pytest.approx([r[key] for r in straight], rel=1e-5)
    assert _weights(folder, name).keys() == _weights(folder, "dp2").keys()


def _weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Every tensor of the last checkpoint by name and shape, of the weights alone."""
    reader = FileSystemReader(str(_last(folder / name) / "weights"))
    found = reader.read_metadata().state_dict_metadata
    return {k: v for k, v in found.items() if k.startswith("module.")}


def test_a_layout_that_pads_otherwise_is_refused(folder: Path) -> None:
    keys = [f"run_dir={folder}/dp2-tp3", "trainer.tp=3", DISTRIBUTED]
    done = torchrun(3, "recipes/sdrrl_pretrain.py", "--config", str(folder / "config.yaml"), *keys)
    assert done.returncode == 2
    assert "is for a vocabulary of 1088 rows, this trainer.tp=3 pads it to 1152" in done.stdout
    assert "continue with a trainer.tp that divides 1088" in done.stdout


@pytest.mark.parametrize("name", ["dp2", "masters-tp2"])
def test_a_run_goes_on_with_the_rows_of_its_checkpoint(folder: Path, name: str) -> None:
    """Whatever the present rule says (here 2,048), unless tp does not divide them or the model has more of its own."""
    from sdrrl_nemo.train.strategy import rows_to_continue, written_vocabulary

    checkpoint = _last(folder / name)
    assert [rows_to_continue(checkpoint, ROWS, 2048, tp) for tp in (1, 2, 3, 4)] == [1088, 1088, 2048, 1088]
    assert rows_to_continue(checkpoint, 1089, 2048, 1) == 2048
    assert rows_to_continue(None, ROWS, 2048, 1) == 2048
    assert written_vocabulary(checkpoint) == (1088 if name == "dp2" else None)


def test_adapters_say_nothing_of_the_vocabulary(folder: Path) -> None:
    from sdrrl_nemo.train.strategy import rows_to_continue

    assert rows_to_continue(_last(folder / "masters-lora"), ROWS, 2048, 1) == 2048


@pytest.mark.parametrize("name", ["masters-dp2", "masters-tp2"])
def test_an_export_has_the_masters(folder: Path, name: str) -> None:
    exported = load_file(folder / f"{name}-hf" / "model.safetensors")
    base = load_file(folder / "model" / "model.safetensors")
    for ours, theirs in (
        ("embedding.word_embeddings.weight", "model.embed_tokens.weight"),
        ("output_layer.weight", "lm_head.weight"),
        ("decoder.final_layernorm.weight", "model.norm.weight"),
    ):
        shape = exported[theirs].shape
        master = _raw(_last(folder / name), f"optimizer.state.fp32_param.module.{ours}").reshape(-1, *shape[1:])
        n = TOKENS if shape[0] == ROWS else shape[0]
        assert torch.equal(exported[theirs][:n], master[:n])
        assert not torch.equal(exported[theirs][:n].bfloat16().float(), master[:n])
        assert torch.equal(exported[theirs][n:], base[theirs][n:])  # rows that are no tokens: weight decay is undone
    assert exported["model.embed_tokens.weight"].shape[0] == ROWS > TOKENS
    down = _raw(_last(folder / name), "optimizer.state.fp32_param.module.decoder.layers.mlp.linear_fc2.weight")
    if name == "masters-dp2":  # tensor parallelism would cut the columns
        for i, layer in enumerate(down.reshape(LAYERS, 72, 96)):
            assert torch.equal(exported[f"model.layers.{i}.mlp.down_proj.weight"], layer)


def test_an_export_merges_the_masters_of_adapters(folder: Path) -> None:
    exported = load_file(folder / "masters-lora-hf" / "model.safetensors")
    base = load_file(folder / "model" / "model.safetensors")
    stem = "optimizer.state.fp32_param.module.decoder.layers.mlp.linear_fc2.adapter.linear_"
    inner, outer = (_raw(_last(folder / "masters-lora"), f"{stem}{part}.weight") for part in ("in", "out"))
    for i, (a, b) in enumerate(zip(inner.reshape(LAYERS, RANK, 96), outer.reshape(LAYERS, 72, RANK), strict=True)):
        name = f"model.layers.{i}.mlp.down_proj.weight"
        learned = ALPHA / RANK * (b @ a)
        assert learned.abs().max() > 1e-4
        assert torch.allclose(exported[name] - base[name], learned, atol=1e-6)
