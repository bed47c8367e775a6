"""The processes of a run or a tool: how many there are, how they join, and what all learn from the first."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from sdrrl_nemo.common.errors import SdrrlError

T = TypeVar("T")


def world_size() -> int:
    """Processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_of_this_machine() -> int:
    """Those of them that torchrun started here."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def join() -> None:
    """Join the processes that torchrun started, each on a device of its own; without torchrun a group of one.

    Training joins before NeMo does, which then uses the group: the ranks check the checkpoint's files together.
    """
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


def largest(value: float) -> float:
    """The largest of the ranks' ``value``, on every rank; each calls this."""
    if not torch.distributed.is_initialized():
        return value
    found = torch.tensor([value], dtype=torch.float64, device=torch.cuda.current_device())
    torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
    return float(found.item())


def from_rank_zero(ask: Callable[[], T]) -> T:
    """What ``ask`` gives on rank 0, on every rank. An error of it, too, is raised on every rank.

    Machines can see different contents of a shared folder for some seconds: whatever all must agree on is looked up
    by one.
    """
    if not torch.distributed.is_initialized():
        return ask()
    told: list[Any] = [None, None]
    if torch.distributed.get_rank() == 0:
        try:
            told[0] = ask()
        except (SdrrlError, OSError) as e:
            told[1] = e if isinstance(e, SdrrlError) else SdrrlError(str(e))
    torch.distributed.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise told[1]
    found: T = told[0]
    return found
