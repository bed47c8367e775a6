"""What a run tells: metrics.jsonl (one line a step), TensorBoard, a progress bar with ETA. Rank 0 only."""

from __future__ import annotations

import json
import math
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from sdrrl_nemo.common.fileio import atomic_write, read_jsonl
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.common.ranks import largest
from sdrrl_nemo.cost.flops import ModelShape, six_nd, training_flops
from sdrrl_nemo.cost.gpus import gpu_of_device
from sdrrl_nemo.train.batches import MicroBatches
from sdrrl_nemo.train.guard import SKIPPED_FILE
from sdrrl_nemo.train.loading.prefetch import Waiting
from sdrrl_nemo.train.loss import loss_names

METRICS_FILE = "metrics.jsonl"
CLOCK_FIELDS = ("seconds", "data_wait_s", "tokens_per_second", "tflops_per_rank", "mfu", "mfu_6nd", "memory_mib")
"""Fields of a row that depend on the machine; all others have the same bits in every run of one configuration."""


def now() -> float:
    """Seconds on a clock that runs on, read once the GPU has done all that it was told to do.

    Otherwise the end of a step, an optimiser that still computes, would be counted as a part of what follows it.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def memory_mib() -> float:
    """Peak memory of this rank in MiB: the GPU's allocator, or the resident set where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class Speed:
    """What a step's seconds mean. Question and answer tokens count, padding does not; ``frozen``: a LoRA run."""

    def __init__(self, batches: MicroBatches, shape: ModelShape, ranks: int, frozen: bool = False) -> None:
        self.batches, self.shape, self.ranks, self.frozen = batches, shape, ranks, frozen
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        known = gpu_of_device(name)
        self.peak = known.bf16_tflops * 1e12 if known else None

    def of(self, step: int, seconds: float) -> dict[str, float | None]:
        """CLOCK_FIELDS of global step ``step`` (from 0) but ``data_wait_s``. MFU: of the dense bf16 peak; None for an
        unknown GPU."""
        data, samples = self.batches.dataset, self.batches.samples_of_step(step)
        lengths, answers = data.lengths[samples], int(data.answer_tokens[samples].sum())
        tokens, flops = int(lengths.sum()), training_flops(self.shape, lengths, self.frozen, projected=answers)
        per_rank = 1.0 / (seconds * self.ranks)
        return {
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "tflops_per_rank": flops * per_rank / 1e12,
            "mfu": flops * per_rank / self.peak if self.peak else None,
            "mfu_6nd": six_nd(self.shape, tokens, self.frozen) * per_rank / self.peak if self.peak else None,
            "memory_mib": memory_mib(),
        }


def truncate_metrics(path: Path, last_step: int) -> None:
    """Drop the lines of steps after ``last_step`` (they will be run again) and a torn last line."""
    if not path.is_file():
        return
    keep = {n for n, row in read_jsonl(path, torn_end=True) if row["step"] <= last_step}
    with open(path, encoding="utf-8", newline="\n") as f:  # the lines that read_jsonl counts
        lines = list(f)
    if len(keep) != len(lines):
        with atomic_write(path) as out:
            out.writelines(line for n, line in enumerate(lines, 1) if n in keep)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All rows of a metrics file, without a torn last line."""
    return [row for _, row in read_jsonl(path, torn_end=True)]


class StepMetrics(pl.Callback):
    """Writes one row a step; docs/training.md lists its keys with their units.

    CLOCK_FIELDS are of the training step alone: from the start of the batch to the optimiser's end, its micro-batches'
    making included. Evaluation and checkpoints lie between steps, and are in no row.
    """

    def __init__(self, run_dir: str, subset_names: Sequence[str], speed: Speed, waiting: Waiting | None = None) -> None:
        self.run_dir = run_dir
        self.waiting = waiting or Waiting()
        self.names = loss_names(subset_names)
        self.speed = speed
        self._bar: Any = None
        self._file: Any = None
        self._began = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Open the file after dropping rows, of skipped steps too, that a resumed run will write again."""
        if not trainer.is_global_zero:
            return
        path = Path(self.run_dir) / METRICS_FILE
        for written in (path, path.with_name(SKIPPED_FILE)):
            truncate_metrics(written, trainer.global_step)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed in on_train_end
        self._bar = progress(None, "train", total=trainer.max_steps, initial=trainer.global_step, unit="step")

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """The clock of a step starts here, not at the end of the step before: other callbacks work in between."""
        if trainer.is_global_zero:
            self._began = now()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Log the step that just ended."""
        ended = now() if trainer.is_global_zero else 0.0
        waited = largest(self.waiting.take())  # every rank: any of them can hold up the others
        if not trainer.is_global_zero:
            return
        seconds = max(ended - self._began, 1e-9)
        metrics = trainer.strategy.metrics  # type: ignore[attr-defined]
        row: dict[str, Any] = {"step": trainer.global_step}
        row |= dict(zip(self.names, metrics["vector"].tolist(), strict=True))
        row |= {k: metrics[k] for k in ("lr", "grad_norm", "clipped", "skipped")}
        row = {
            k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in row.items()
        }  # JSON has no NaN
        step = trainer.global_step - 1
        batches = self.speed.batches
        row |= {"tokens": batches.useful_tokens(step), "live_share": round(batches.live_share(step), 6)}
        row |= {**self.speed.of(step, seconds), "data_wait_s": waited}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        scalars = {k: v for k, v in row.items() if k != "step" and v is not None}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=trainer.global_step)
        shown = {"loss": f"{metrics['vector'][0]:.4f}", "tok_s": f"{row['tokens_per_second']:.0f}"}
        if row["mfu"] is not None:
            shown["mfu"] = f"{100 * row['mfu']:.1f}%"
        self._bar.set_postfix(shown)
        self._bar.update(1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Close bar and file."""
        if self._bar is not None:
            self._bar.close()
            self._file.close()
