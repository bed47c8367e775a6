"""What goes wrong around a run, not in it: no room on the disk, a process of the run that died. One sentence each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import NO_ROOM

LOST = ("closed by peer", "connection reset", "connection refused", "broken pipe", "socket closed", "remote process")
"""How gloo and NCCL say that the other end is gone."""
TORN_WRITE = ("pytorchstreamwriter", "inline_container", "file write failed")
"""How torch's own file writer says that a write failed; it does not say why."""
AGAIN = "the same command continues from the last checkpoint"


@contextlib.contextmanager
def one_sentence(run_dir: str) -> Iterator[None]:
    """Turn a full disk and a lost process into SdrrlError; everything else passes through.

    The rank that finds no room says so whichever it is: the others only see it go.
    """
    try:
        yield
    except SdrrlError:
        raise
    except (Exception, CheckpointException) as e:  # torch derives the latter from BaseException
        known = _about(run_dir, e)
        if known is None:
            raise
        raise known from None


def _about(run_dir: str, error: BaseException) -> SdrrlError | None:
    chain = list(_causes(error))
    for e in chain:
        if isinstance(e, OSError) and e.errno in NO_ROOM:
            return _no_room(run_dir, os.strerror(e.errno or 0))
    text = " ".join(str(e).lower() for e in chain)
    for number in NO_ROOM:
        if os.strerror(number).lower() in text:
            return _no_room(run_dir, os.strerror(number))
    if any(mark in text for mark in TORN_WRITE):
        return _no_room(run_dir, "a file could not be written to its end")
    if any(mark in text for mark in LOST):
        return SdrrlError(f"{run_dir}: another process of this run ended, so this one cannot go on; {AGAIN}")
    if any(isinstance(e, CheckpointException) and not e.failures for e in chain):
        return SdrrlError(f"{run_dir}: another process of this run could not write its part of a checkpoint; {AGAIN}")
    return None


def _no_room(run_dir: str, why: str) -> SdrrlError:
    error = SdrrlError(f"{run_dir}: no room to write ({why}); free some: {AGAIN}")
    error.from_any_rank = True
    return error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what led to it, and what torch's distributed checkpoints collected from the ranks."""
    todo: list[Any] = [error]
    seen: set[int] = set()
    while todo:
        e = todo.pop()
        if not isinstance(e, BaseException) or id(e) in seen:
            continue
        seen.add(id(e))
        yield e
        todo += [e.__cause__, e.__context__]
        failures = getattr(e, "failures", None)  # rank -> (exception, its traceback)
        if isinstance(failures, dict):
            todo += [f[0] if isinstance(f, tuple) else f for f in failures.values()]
