"""The recipe with made-up weights and rows: started, measured, compared with a CPU, put beside the prediction."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from sdrrl_nemo.common.fileio import read_json, read_jsonl, write_json
from sdrrl_nemo.cost.flops import ModelShape, training_flops
from sdrrl_nemo.cost.gpus import Gpu
from sdrrl_nemo.train.config import RunConfig
from tools.gpu.child import torchrun
from tools.gpu.first_losses import compared, reference
from tools.gpu.layer_kinds import Kind
from tools.gpu.plain_loop import Plan
from tools.gpu.shapes import Shape

RECIPE = "recipes/sdrrl_pretrain.py"
WITH_LAYERS = "tools/gpu/with_layers.py"
KEPT = 3
"""First losses that the report shows."""


def settings(shape: Shape, model: Path, data: Path, run: Path, threads: int = 0) -> dict[str, Any]:
    """The recipe's configuration of a shape; nothing is saved, for what is measured is training."""
    return {
        "run_dir": str(run),
        "model": {"hf_path": str(model)},
        "data": {"path": str(data)},
        "loss": {"sample_reduction": "step"},  # what the plain loop's loss is
        "optim": {"lr": shape.lr, "schedule": "constant"},
        "trainer": {
            "precision": shape.precision,
            "micro_batch_size": shape.micro_batch_size,
            "global_batch_size": shape.global_batch_size,
            "max_steps": shape.steps,
            "save_every": -1,
            "num_threads": threads,
        },
    }


def recipe_command(kind: Kind, config: Path, gate: Path | None = None, *overrides: str) -> list[str]:
    """torchrun, one process, these layers."""
    wait = str(gate) if gate else "-"
    return torchrun(WITH_LAYERS, kind.name, wait, RECIPE, "--config", str(config), *overrides)


def write_settings(path: Path, content: dict[str, Any]) -> Path:
    """As YAML, for ``--config``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def recipe_result(shape: Shape, run: Path, inputs_folder: Path) -> dict[str, Any]:
    """What a run's metrics.jsonl says."""
    rows = [row for _, row in read_jsonl(run / "metrics.jsonl")]
    late = rows[shape.warm_up :]
    ran = {"losses": [r["loss"] for r in rows], "grad_norms": [r["grad_norm"] for r in rows]}
    return {
        "steps": len(rows),
        "tokens_per_second": statistics.median(r["tokens_per_second"] for r in late),
        "step_seconds": statistics.median(r["seconds"] for r in late),
        "mfu": _median([r["mfu"] for r in late]),
        "peak_memory_gb": max(r["memory_mib"] for r in rows) * 2**20 / 1e9,
        **_losses(shape, ran, inputs_folder),
    }


def plain_command(shape: Shape, model: Path, data: Path, device: str, plan: Path) -> list[str]:
    """transformers' loop in a process of its own."""
    write_json(plan, asdict(Plan(shape.name, str(model), str(data), device, shape.precision, shape.micro_batch_size)))
    return [sys.executable, "tools/gpu/plain_loop.py", str(plan), str(plain_output(plan))]


def plain_output(plan: Path) -> Path:
    """Where the loop of a plan writes."""
    return plan.with_suffix(".out.json")


def plain_result(shape: Shape, plan: Path, inputs_folder: Path, card: Gpu | None) -> dict[str, Any]:
    """The same figures of transformers' loop; memory is the GPU's."""
    ran = read_json(plain_output(plan))
    late = slice(shape.warm_up, None)
    speeds = [tokens / seconds for tokens, seconds in zip(ran["tokens"], ran["seconds"], strict=True)]
    speed = statistics.median(speeds[late])
    return {
        "steps": len(speeds),
        "attention": ran["attention"],
        "tokens_per_second": speed,
        "step_seconds": statistics.median(ran["seconds"][late]),
        "mfu": speed * _flops_a_token(shape, Path(ran["plan"]["data"])) / (card.bf16_tflops * 1e12) if card else None,
        "peak_memory_gb": ran["peak_bytes"] / 1e9 if ran["peak_bytes"] is not None else None,
        **_losses(shape, ran, inputs_folder),
    }


def predicted(shape: Shape, config: Path, card: Gpu, fused: bool) -> dict[str, Any]:
    """What tools/plan.py says of the same run on one GPU of this kind."""
    from sdrrl_nemo.common.config import load_config
    from sdrrl_nemo.plan.search import Planner
    from sdrrl_nemo.plan.workload import workload

    run = load_config(RunConfig, str(config), [])
    planner = Planner(run, model_shape(shape), card, workload(run), fused=fused)
    plan = planner.predict(planner.layout(1))
    return {
        "gpu": card.name,
        "tokens_per_second": plan.tokens_per_second,
        "step_seconds": plan.step.total,
        "mfu": plan.mfu,
        "memory_gb": plan.memory.total / 1e9,
    }


def model_shape(shape: Shape) -> ModelShape:
    """Sizes by which operations and bytes are counted."""
    from transformers import LlamaConfig

    return ModelShape.of(LlamaConfig(**shape.config))


def _flops_a_token(shape: Shape, data: Path) -> float:
    """Operations of a question or answer token, on average over the set."""
    from sdrrl_nemo.data.packing.packed import PackedDataset

    packed = PackedDataset(data)
    answers = int(packed.answer_tokens.sum())
    return training_flops(model_shape(shape), packed.lengths, projected=answers) / float(packed.lengths.sum())


def _losses(shape: Shape, ran: dict[str, Any], inputs_folder: Path) -> dict[str, Any]:
    """First and last losses and how far they are from the CPU's."""
    row = reference(shape, inputs_folder)
    return {
        "first_losses": ran["losses"][:KEPT],
        "last_loss": ran["losses"][-1],
        "cpu_fp32_losses": row["losses"],
        **compared(ran, row, shape.precision),
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None
