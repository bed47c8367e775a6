"""The processes of a run: how many there are, and how they join."""

from __future__ import annotations

import os

import torch


def world_size() -> int:
    """Processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_of_this_machine() -> int:
    """Those of them that torchrun started here."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def join() -> None:
    """Join the processes before NeMo does, which then uses them: the ranks check the checkpoint's files together."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    os.environ.setdefault("RANK", "0")
    os.environ.setdefault("WORLD_SIZE", "1")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "0")
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
