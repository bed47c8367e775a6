"""Megatron's options for memory and speed leave every bit of a run as it is: losses, norms, weights, Adam's moments."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.runs import metric_rows
from tests.tiny import packed_set, tiny_model
from tests.warm import torchrun

WORKER = "tests/distributed/options_worker.py"
PLAIN = {
    "tp2": "trainer.tp=2 trainer.sequence_parallel=true",
    "pp2": "trainer.pp=2 trainer.vpp=2",
    "dp2": "optim.use_distributed_optimizer=true",
    "lora": "lora.rank=4 lora.dropout=0.1 optim.lr=0.01",
}
FULL = "megatron.recompute_granularity=full megatron.recompute_method"
OPTIONS = {
    "tp2-uniform": f"{FULL}=uniform megatron.recompute_num_layers=2",
    "tp2-parts": "megatron.recompute_granularity=selective megatron.recompute_modules=[mlp,layernorm,core_attn]",
    "pp2-block": f"{FULL}=block megatron.recompute_num_layers=1 megatron.overlap_grad_reduce=true",
    "dp2-overlap": "megatron.overlap_grad_reduce=true megatron.overlap_param_gather=true data.validation=train",
    "dp2-fused": "megatron.gradient_accumulation_fusion=true megatron.overlap_grad_reduce=true",
    "lora-uniform": f"{FULL}=uniform megatron.recompute_num_layers=1 megatron.overlap_grad_reduce=true",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs: three steps, the last of which has fewer rows than ranks take, so that one has no answer at all."""
    folder = tmp_path_factory.mktemp("options")
    packed_set(folder / "data", tiny_model(folder / "model", tied=False), samples=30)
    settings = {
        "run_dir": "unset",
        "model": {"hf_path": str(folder / "model"), "pad_heads_to": 6},
        "data": {"path": str(folder / "data")},
        "trainer": {"precision": "fp32", "global_batch_size": 4, "max_steps": 3, "num_threads": 1},
        "optim": {"lr": 1.0e-3},
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    runs = PLAIN | {name: f"{PLAIN[name.partition('-')[0]]} {keys}" for name, keys in OPTIONS.items()}
    done = torchrun(2, WORKER, str(config), *(f"run_dir={folder}/{name} {keys}" for name, keys in runs.items()))
    assert done.returncode == 0, done.stdout[-4000:]
    return folder


def _weights_and_moments(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (run / "checkpoints" / "step-000003").rglob("*.distcp")}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_bit_is_as_without(folder: Path, name: str) -> None:
    plain = folder / name.partition("-")[0]
    rows = metric_rows(folder / name)
    assert len(rows) == 3
    assert rows == metric_rows(plain)
    files = _weights_and_moments(plain)
    assert files
    assert _weights_and_moments(folder / name) == files
