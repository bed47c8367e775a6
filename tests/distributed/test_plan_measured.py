"""The planner's memory against bytes counted on the real recipe: tiny model, CPU, one and two processes.

PLAN_RECORD=docs/results/plan_measured.json pytest tests/distributed/test_plan_measured.py writes what was counted too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from transformers import AutoConfig

from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.plan.checkpoint_bytes import (
    loaded_bytes,
    read_bytes,
    read_host_bytes,
    saved_bytes,
    start_host_bytes,
    start_read_bytes,
)
from sdrrl_nemo.plan.layout import Build, Layout, padded
from sdrrl_nemo.plan.memory import memory
from tests.tiny import packed_set, tiny_model
from tests.warm import torchrun

WORKER = "tests/distributed/plan_worker.py"
ROW = 64
ROWS = 8
"""Rows of a step."""
WITHIN = 0.10
WIDTH = 4
"""Bytes of a weight in the model's folder."""
COMMAND = "PLAN_RECORD=docs/results/plan_measured.json pytest tests/distributed/test_plan_measured.py"

PADDED = {"tp": 2, "pad_heads_to": 2}  # 9 heads in 3 groups become 12 in 4
UNITS = {"recompute_num_layers": 2}
PARTS = {"recompute_modules": "[mlp,layernorm]"}
ONE: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {},
    "samples in rows": {"packed": False, "micro_batch_size": 2},
    "fused loss": {"kernel": "fused_linear"},
    "recomputed in units of 2 layers": {"recompute_granularity": "full", "recompute_method": "uniform", **UNITS},
}
TWO: dict[str, dict[str, Any]] = {
    "TP=2": {**PADDED},
    "TP=2, SP": {**PADDED, "sequence_parallel": True},
    "TP=2, SP, fused loss": {**PADDED, "sequence_parallel": True, "kernel": "fused_linear"},
    "PP=2": {"pp": 2},
    "PP=2, VPP=2": {"pp": 2, "vpp": 2, "precision": "fp32"},
    "DP=2": {"micro_batch_size": 2},
    "DP=2, distributed optimiser": {"distributed": True},
    "DP=2, distributed optimiser, fp32": {"distributed": True, "precision": "fp32"},
    "TP=2, SP, parts recomputed": {**PADDED, "sequence_parallel": True, "recompute_granularity": "selective", **PARTS},
    "CP=2": {"cp": 2, "precision": "fp32"},
    "CP=2, distributed optimiser": {"cp": 2, "distributed": True, "micro_batch_size": 2},
}
KEYS = {
    "precision": "trainer.precision",
    "packed": "data.packed",
    "kernel": "loss.kernel",
    "pad_heads_to": "model.pad_heads_to",
    "distributed": "optim.use_distributed_optimizer",
    **{k: f"megatron.{k}" for k in ("recompute_granularity", "recompute_method", *UNITS, *PARTS)},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight layers and a tiny vocabulary, so that no part of the memory drowns the others; untied embeddings."""
    folder = tmp_path_factory.mktemp("measured")
    model = tiny_model(folder / "model", tied=False, layers=8)
    packed_set(folder / "data", model, seq_length=ROW)
    settings = {
        "run_dir": "unset",
        "model": {"hf_path": str(model)},
        "data": {"path": str(folder / "data")},
        "trainer": {"precision": "bf16", "global_batch_size": ROWS, "max_steps": 1, "num_threads": 1},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def measure(config: Path, processes: int, cases: dict[str, dict[str, Any]], out: Path) -> Callable[[str, int], Any]:
    """Run all cases in the same processes; the function returned gives what a rank measured in a case."""
    lines = []
    for number, case in enumerate(cases.values()):
        overrides = [f"run_dir={out}/run{number}"]
        overrides += [f"{KEYS.get(k, 'trainer.' + k)}={str(v).lower()}" for k, v in case.items()]
        lines.append(" ".join(overrides))
    done = torchrun(processes, WORKER, str(config), str(out), *lines)
    assert done.returncode == 0, done.stdout[-4000:]
    names = list(cases)
    return lambda name, rank: json.loads((out / f"{names.index(name)}-{rank}.json").read_text())


@pytest.fixture(scope="module")
def one(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Any]:
    return measure(config, 1, ONE, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Any]:
    return measure(config, 2, TWO, tmp_path_factory.mktemp("two"))


def predicted(config: Path, case: dict[str, Any], processes: int, stage: int, live_share: float) -> dict[str, float]:
    """The planner's bytes of one rank of ``stage``, as it would print them for a CPU."""
    tp, pp, cp = (case.get(k, 1) for k in ("tp", "pp", "cp"))
    dp = processes // (tp * pp * cp)
    micro = case.get("micro_batch_size", 1)
    layout = Layout(
        tp=tp,
        pp=pp,
        cp=cp,
        dp=dp,
        vpp=case.get("vpp", 1),
        sequence_parallel=case.get("sequence_parallel", False),
        micro_batch_size=micro,
        accumulation=ROWS // (micro * dp),
    )
    build = Build(
        precision=case.get("precision", "bf16"),
        fused=False,
        device="cpu",
        packed=case.get("packed", True),
        distributed_optimizer=case.get("distributed", False),
        fused_linear=case.get("kernel") == "fused_linear",
        live_share=live_share,
        recompute=case.get("recompute_granularity", "none"),
        recompute_method=case.get("recompute_method", ""),
        recompute_layers=case.get("recompute_num_layers", 0),
        recompute_modules=tuple(case.get("recompute_modules", "").strip("[]").split(",")),
    )
    true = ModelShape.of(AutoConfig.from_pretrained(config.parent / "model"))
    shape = padded(true, case.get("pad_heads_to", 1), tp)
    found = memory(shape, layout, build, row_tokens(config, cp), stage)
    return {
        "parameters": found.parameters,
        "gradients": found.gradients,
        "optimizer": found.optimizer,
        "activations": found.activations + found.loss,
        "saved": saved_bytes(shape, layout, build, stage),
        "loaded": loaded_bytes(shape, layout, build, stage),
        "read": read_bytes(shape, layout, build, stage),
        "read_host": read_host_bytes(shape, layout, build),
        "start_read": start_read_bytes(true, layout, stage, WIDTH),
        "start_host": start_host_bytes(true, WIDTH),
    }


def row_tokens(config: Path, cp: int) -> int:
    """Tokens of a row: with context parallelism every sample is padded to a multiple of 2 * cp (train/batches.py)."""
    if cp == 1:
        return ROW
    from sdrrl_nemo.data.packing.packed import PackedDataset

    data = PackedDataset(config.parent / "data", "train")
    whole = np.ceil(data.lengths / (2 * cp)) * 2 * cp
    return max(ROW, *(int(whole[list(data.samples_of(p))].sum()) for p in range(len(data))))


@pytest.fixture(scope="module")
def record() -> Iterator[list[dict[str, Any]]]:
    """Rows of the result file."""
    rows: list[dict[str, Any]] = []
    yield rows
    if "PLAN_RECORD" in os.environ:
        facts = {k: v for k, v in provenance().items() if k != "command"}
        write_json(Path(os.environ["PLAN_RECORD"]), {"command": COMMAND, "provenance": facts, "rows": rows})


def compare(
    config: Path, case: dict[str, Any], processes: int, rank: int, measured: dict[str, float]
) -> dict[str, Any]:
    """Assert that every part is within the bound; returns the row of the result file."""
    expected = predicted(config, case, processes, rank if case.get("pp", 1) > 1 else 0, measured["live_share"])
    found = {k: measured[k] for k in expected}
    assert measured["left"] == 0, "autograd still holds tensors: the peak is not one step's"
    assert expected == pytest.approx(found, rel=WITHIN), {k: expected[k] / found[k] for k in expected}
    return {"settings": case, "processes": processes, "rank": rank, "counted": found, "predicted": expected}


@pytest.mark.parametrize("name", ONE)
def test_one_process(config: Path, one: Callable[[str, int], Any], record: list[dict[str, Any]], name: str) -> None:
    record.append({"case": name, **compare(config, ONE[name], 1, 0, one(name, 0))})


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", TWO)
def test_two_processes(
    config: Path, two: Callable[[str, int], Any], record: list[dict[str, Any]], name: str, rank: int
) -> None:
    record.append({"case": name, **compare(config, TWO[name], 2, rank, two(name, rank))})
