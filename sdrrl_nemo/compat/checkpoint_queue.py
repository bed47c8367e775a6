"""The process in which Megatron collects what its writers of a checkpoint report, made deaf to the launcher's signals.

Launchers send SIGTERM to every process there is: torchrun to each rank's whole process group, Slurm to all processes
of a step. A rank answers with a checkpoint. Its writers are forked from it and keep its answer, but this process is
started anew, would end at once, and with it the very save that was asked for.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker
from multiprocessing.managers import SyncManager
from typing import Any

from sdrrl_nemo.compat.registry import register

_QUEUE = register(
    "checkpoint-queue", "megatron-core", "its process must not end at a SIGTERM that asks its rank for a checkpoint"
)
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""What launchers and terminals send to whole groups of processes."""


def shield() -> None:
    """Replace the function that makes the process; call it before the first checkpoint, again it does nothing."""
    from megatron.core.dist_checkpointing.strategies import filesystem_async as writer

    if writer._get_write_results_queue is not results_queue:
        _QUEUE.replace(writer, "_get_write_results_queue", results_queue, source="349269cbdd56")


def results_queue() -> Any:
    """As Megatron's: one queue for all saves of this process, in a process of its own that imports nothing of ours."""
    from megatron.core.dist_checkpointing.strategies import filesystem_async as writer

    if writer._results_queue is None:
        manager = SyncManager(ctx=multiprocessing.get_context("spawn"))
        # The new process inherits the blocked signals, so there is no moment in which one could end it.
        resource_tracker.ensure_running()  # would else be started inside, and unblocks them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            manager.start(_deaf)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        writer._results_queue = manager.Queue()
    return writer._results_queue


def _deaf() -> None:
    """In the new process: ignore the signals, and end with the rank, which may be killed without a word."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # until the rank and the writers forked from it are gone
        os._exit(0)
