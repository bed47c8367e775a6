"""What a training run left behind, for comparisons: its metrics without clocks, the tensors of its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sdrrl_nemo.train.callbacks.metrics import CLOCK_FIELDS


def metric_rows(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCK_FIELDS} for line in lines]


def steps_done(run: Path) -> int:
    """Lines of metrics.jsonl."""
    metrics = run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.is_file() else 0


def checkpoint_tensors(run: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(path, whole tensor) of the newest checkpoint, optimiser included, in order of the names.

    Needs one process that has a process group (``sdrrl_nemo.model.standalone.init_parallel``).
    """
    from megatron.core import dist_checkpointing

    newest = max((run / "checkpoints").glob("step-*"))
    yield from _leaves("", dist_checkpointing.load_plain_tensors(str(newest / "weights")))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _leaves(f"{name}/{key}", value[key])
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _leaves(f"{name}/{i}", item)
    elif isinstance(value, torch.Tensor):
        yield name, value
