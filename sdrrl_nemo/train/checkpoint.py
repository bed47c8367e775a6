"""Checkpoints that are whole or absent: written beside their final name, fsynced, renamed."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from sdrrl_nemo.common.fileio import fsync_dir

NAME = re.compile(r"^step-(\d{6,})$")
UNFINISHED = "unfinished-"


def checkpoint_name(step: int) -> str:
    """Directory name of the checkpoint after ``step`` optimiser steps."""
    return f"step-{step:06d}"


def complete_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, directory) of each finished checkpoint, oldest first."""
    if not folder.is_dir():
        return []
    found = [(int(m[1]), p) for p in folder.iterdir() if (m := NAME.match(p.name)) and p.is_dir()]
    return sorted(found)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed run left half written; finished checkpoints are never touched."""
    for p in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(p)


def _fsync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            with open(os.path.join(root, name), "rb+") as f:
                os.fsync(f.fileno())
        fsync_dir(Path(root))


class AtomicCheckpoint(pl.Callback):
    """Saves every ``every`` steps and at the end (never if ``every`` is -1); keeps the newest ``keep``."""

    def __init__(self, folder: str, every: int, keep: int) -> None:
        self.folder = folder
        self.every = every
        self.keep = keep

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Save when a step asks for it."""
        step = trainer.global_step
        if self.every >= 0 and (step == trainer.max_steps or (self.every and step % self.every == 0)):
            self.save(trainer, step)

    def save(self, trainer: pl.Trainer, step: int) -> None:
        """Write the checkpoint of ``step``; every rank calls this."""
        folder = Path(self.folder)
        final = folder / checkpoint_name(step)
        temporary = folder / f"{UNFINISHED}{final.name}"
        if trainer.is_global_zero and temporary.exists():
            shutil.rmtree(temporary)
        torch.distributed.barrier()
        trainer.save_checkpoint(temporary)
        torch.distributed.barrier()
        if trainer.is_global_zero:
            _fsync_tree(temporary)
            if final.exists():
                shutil.rmtree(final)
            os.replace(temporary, final)
            fsync_dir(folder)
            for _, old in complete_checkpoints(folder)[: -self.keep]:
                shutil.rmtree(old)
        torch.distributed.barrier()
