"""Eq. 6 on a held-out packed set during training, early stopping on it, and which step was best."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from megatron.core import parallel_state

from sdrrl_nemo.common.fileio import read_jsonl
from sdrrl_nemo.common.ranks import from_rank_zero
from sdrrl_nemo.train.batches import MicroBatches, MicroBatchStream
from sdrrl_nemo.train.callbacks.metrics import truncate_metrics
from sdrrl_nemo.train.config import ValidationSettings
from sdrrl_nemo.train.loading.prefetch import ahead
from sdrrl_nemo.train.loss import loss_names

VALIDATION_FILE = "validation.jsonl"


class Progress:
    """Losses by step: which was best, and whether patience has run out."""

    def __init__(self, patience: int, min_delta: float) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.best_step, self.best_loss, self.bad = 0, math.inf, 0

    def add(self, step: int, loss: float) -> None:
        """Record one evaluation; a loss that is not finite is never the best."""
        if loss < self.best_loss - self.min_delta:
            self.best_step, self.best_loss, self.bad = step, loss, 0
        else:
            self.bad += 1

    @property
    def exhausted(self) -> bool:
        """True when ``patience`` evaluations in a row brought nothing (patience 0: never)."""
        return 0 < self.patience <= self.bad


class HeldOutLoss(pl.Callback):
    """Evaluates every ``settings.every`` steps and at the end; writes ``validation.jsonl``; stops when told to.

    The loss is exact: the weights of Eq. 6 over the whole held-out set, summed, so it depends neither on batch sizes
    nor on the layout, and it is no mean of means.
    """

    def __init__(
        self,
        batches: MicroBatches,
        settings: ValidationSettings,
        run_dir: str,
        subset_names: Sequence[str],
        prefetch: int = 0,
    ) -> None:
        self.batches, self.settings, self.names = batches, settings, loss_names(subset_names)
        self.prefetch = prefetch
        self.path = Path(run_dir) / VALIDATION_FILE
        self.progress = Progress(settings.patience, settings.min_delta)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Forget evaluations of steps that a resumed run will take again; remember the others on every rank."""
        if trainer.is_global_zero:
            truncate_metrics(self.path, trainer.global_step)
        for step, loss in from_rank_zero(self._evaluated):
            self.progress.add(step, loss)

    def _evaluated(self) -> list[tuple[int, float]]:
        """(step, loss) of the rows of the file."""
        rows = read_jsonl(self.path) if self.path.is_file() else ()
        return [(row["step"], row["loss"]) for _, row in rows]

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Evaluate when a step asks for it."""
        step = trainer.global_step
        every = self.settings.every
        if step != trainer.max_steps and (not every or step % every):
            return
        values = self.evaluate(trainer)
        self.progress.add(step, values[0])
        if trainer.is_global_zero:
            row = {"step": step, **dict(zip(self.names, values, strict=True))}
            with open(self.path, "a", encoding="utf-8") as f:
                f.write(json.dumps(row) + "\n")
                f.flush()
                os.fsync(f.fileno())
            for logger in trainer.loggers:
                logger.log_metrics({f"validation_{k}": v for k, v in row.items() if k != "step"}, step=step)
        if self.progress.exhausted:
            trainer.should_stop = True

    def evaluate(self, trainer: pl.Trainer) -> list[float]:
        """Eq. 6 and its addends on the held-out set; every rank calls this and gets the same numbers."""
        strategy: Any = trainer.strategy
        stream = MicroBatchStream(
            self.batches,
            first_step=0,
            dp_rank=parallel_state.get_data_parallel_rank(),
            dp_size=parallel_state.get_data_parallel_world_size(),
            cp_rank=parallel_state.get_context_parallel_rank(),
        )
        steps = self.batches.schedule.steps_per_epoch
        total = torch.zeros(len(self.names), dtype=torch.float64)
        strategy.model.eval()  # no dropout of adapters, nothing kept to be computed again
        try:
            with torch.no_grad(), contextlib.closing(ahead(stream, self.prefetch)) as iterator:
                for _ in range(steps):
                    vector = strategy.from_last_stage(strategy.model.validation_step(iterator))
                    total += vector.to(total.device)
        finally:
            strategy.model.train()
        values = [float(x) for x in total / steps]
        if math.isnan(values[0]):
            strategy.lightning_module.label_flag.require_none(trainer.global_step)
        return values
