"""Published Megatron runs (published.yaml) and what the planner predicts for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import yaml

from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.cost.gpus import gpu
from sdrrl_nemo.plan.layout import Build, Layout
from sdrrl_nemo.plan.memory import Memory, fullest
from sdrrl_nemo.plan.speed import Efficiency, Step, Work, step_seconds


@dataclass(frozen=True)
class PublishedRun:
    """One row of a published table. ``seconds``: of a step, as published or from the published operations a second."""

    name: str
    source: str
    gpu: str
    shape: ModelShape
    layout: Layout
    build: Build
    row: int
    """Tokens of a row."""
    sample: int
    """Tokens of a sample within it."""
    seconds: float
    chosen_on: bool
    """The efficiencies of plan/speed.py were chosen to fit this run, among others."""
    with_optimizer: bool = True
    """False: only the forward and the backward pass were timed."""

    def predict(self, efficiency: Efficiency | None = None) -> Step:
        """Seconds of a step, as the planner sees this run."""
        work = Work(self.row, (self.sample + 1) / 2)
        found = step_seconds(self.shape, self.layout, self.build, work, gpu(self.gpu), efficiency)
        return found if self.with_optimizer else replace(found, optimizer=0.0)

    def memory(self) -> Memory:
        """Bytes of the fullest rank; GPT's layers by Korthikanti et al., Llama's by plan/activations.py."""
        sequence = None if self.shape.gated else self.sample
        return fullest(self.shape, self.layout, self.build, self.row, sequence)[1]


SHAPE = ("layers", "hidden", "heads", "groups", "feed_forward", "vocabulary")
LAYOUT = ("tp", "pp", "vpp", "cp", "sequence_parallel", "micro_batch_size")
BUILD = ("recompute", "flash", "gradient_bytes", "distributed_optimizer", "fp8", "fused", "eager")


def _run(row: dict[str, Any]) -> PublishedRun:
    sizes = {k: row[k] for k in SHAPE}
    shape = ModelShape(**sizes, head_dim=row["hidden"] // row["heads"], gated=row.get("gated", True))
    parallel = {k: row[k] for k in LAYOUT if k in row}
    dp = row["gpus"] // (row["tp"] * row["pp"] * row.get("cp", 1))
    accumulation = row["global_batch_size"] // (row["micro_batch_size"] * dp)
    seconds = row.get("seconds") or eq3(shape, row) / (row["gpus"] * row["teraflops"] * 1e12)
    return PublishedRun(
        name=row["name"],
        source=row["source"],
        gpu=row["gpu"],
        shape=shape,
        layout=Layout(dp=dp, accumulation=accumulation, **parallel),
        build=Build(
            fused_accumulation=True,
            overlap_grad_reduce=row.get("overlap", False),
            overlap_param_gather=row.get("overlap", False),
            **{k: row[k] for k in BUILD if k in row},
        ),
        row=row["row"],
        sample=row.get("sample", row["row"]),
        seconds=seconds,
        chosen_on=row["chosen_on"],
        with_optimizer=row.get("with_optimizer", True),
    )


def eq3(shape: ModelShape, row: dict[str, Any]) -> float:
    """Operations of a step with full recomputation: Narayanan et al. 2021, Eq. 3."""
    h, layers, s = shape.hidden, shape.layers, row["row"]
    ratio = 1 + s / (6 * h) + shape.vocabulary / (16 * layers * h)
    return float(96 * row["global_batch_size"] * s * layers * h**2 * ratio)


def published_runs() -> list[PublishedRun]:
    """All rows of published.yaml."""
    text = resources.files("sdrrl_nemo.plan").joinpath("published.yaml").read_text(encoding="utf-8")
    return [_run(row) for row in yaml.safe_load(text)["runs"]]
