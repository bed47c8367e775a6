"""Several trainings, exports and evaluations one after another in one process, each as in a process of its own.

A run leaves more behind than memory: Megatron's process groups, its count of micro-batches, random states, the judge of
repeated steps; NeMo's record of ranks and sizes; torch's threads and switches; environment variables and signal
handlers. ``as_in_a_new_process`` puts all of that back, so that the next run has the bits it would have alone.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.distributed import distributed_c10d

from sdrrl_nemo.compat.registry import register

_SINGLETONS = register("singletons", "nemo_toolkit", "ranks and sizes of a run are kept for the life of the process")
_PROCESS_GROUPS = register("process-groups", "torch", "the groups that a run made are ended, the group of all stays")
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
FP8_STATES = ("transformer_engine.pytorch.fp8", "transformer_engine.pytorch.quantization")
"""Where Transformer Engine's versions keep the class that holds its scales for the life of a process."""


@contextlib.contextmanager
def as_in_a_new_process() -> Iterator[None]:
    """What runs inside finds the process as it was at the first use, and leaves nothing to what comes after it."""
    before = _state()
    try:
        yield
    finally:
        forget()
        _put_back(before)


def forget() -> None:
    """Drop what Megatron and NeMo keep of a run; does nothing where they were not imported."""
    if "megatron.core" in sys.modules:
        _forget_megatron()
    if "nemo.utils.app_state" in sys.modules:
        from nemo.utils.app_state import AppState
        from nemo.utils.metaclasses import Singleton

        _SINGLETONS.get(Singleton, "_Singleton__instances").pop(AppState, None)
    for name in FP8_STATES:
        manager = getattr(sys.modules.get(name), "FP8GlobalStateManager", None)
        if manager is not None:
            manager.reset()
    gc.collect()  # a trainer and its model know each other: only the collector frees them
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _forget_megatron() -> None:
    from megatron.core import num_microbatches_calculator, parallel_state, rerun_state_machine
    from megatron.core.tensor_parallel.random import initialize_rng_tracker

    parallel_state.destroy_model_parallel()
    num_microbatches_calculator.destroy_num_microbatches_calculator()
    rerun_state_machine.destroy_rerun_state_machine()
    initialize_rng_tracker(force_reset=True)
    if torch.distributed.is_initialized():
        world = _PROCESS_GROUPS.get(distributed_c10d, "_world")
        for group in [g for g in world.pg_map if g is not torch.distributed.group.WORLD]:
            torch.distributed.destroy_process_group(group)


def _state() -> dict[str, Any]:
    """What a run may change in Python and in torch."""
    return {
        "environment": dict(os.environ),
        "arguments": list(sys.argv),
        "folder": os.getcwd(),
        "signals": {number: signal.getsignal(number) for number in SIGNALS},
        "random": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": torch.get_default_dtype(),
    }


def _put_back(state: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(state["environment"])
    sys.argv[:] = state["arguments"]
    os.chdir(state["folder"])
    for number, handler in state["signals"].items():
        signal.signal(number, handler)
    random.setstate(state["random"][0])
    np.random.set_state(state["random"][1])
    torch.set_rng_state(state["random"][2])
    torch.set_num_threads(state["threads"])
    torch.use_deterministic_algorithms(state["deterministic"])
    torch.set_default_dtype(state["dtype"])
