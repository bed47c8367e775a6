"""Lets megatron-core 0.15 load a checkpoint into torch's Adam, used where neither Apex nor Transformer Engine is.

Its DistributedOptimizer was tried with their fused Adams only. With torch's, the step is read from the state of a
parameter before there is any; it is expected among the tensors of the checkpoint, where it is not kept (it is in the
parameter groups); and all parameters are given one and the same tensor for it, which then counts every parameter.

megatron-core also asks torch for no particular kernel, and torch then takes the one that goes through all parameters
operation by operation, with 4 bytes a parameter for what lies between two of them. ``one_kernel`` asks for the fused
one.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from sdrrl_nemo.compat.registry import register

_STEP = register(
    "torch-adam-step", "megatron-core", "a loaded checkpoint gives every parameter of torch's Adam a step of its own"
)
_SETTER = "_set_main_param_and_optimizer_states"


def ready_to_load(mcore_optimizer: Any) -> None:
    """Call before a checkpoint is loaded; leaves every other optimiser alone."""
    for part in _with_torchs_adam(mcore_optimizer):
        if isinstance(part, DistributedOptimizer):
            _allocate(part.optimizer)
            _keep_step(part)


def one_kernel(mcore_optimizer: Any) -> None:
    """Call before the first step, after a checkpoint is loaded: torch's Adam takes its step in one pass over
    parameters, gradients and moments. The same step but for the last bit; leaves every other optimiser alone.
    """
    for part in _with_torchs_adam(mcore_optimizer):
        for group in part.optimizer.param_groups:
            group["fused"] = True
            for p in group["params"]:
                if state := part.optimizer.state.get(p):
                    state["step"] = state["step"].to(p.device)  # where the fused kernel counts


def _with_torchs_adam(mcore_optimizer: Any) -> list[Any]:
    """The parts of a Megatron optimiser that step with torch's Adam."""
    parts = getattr(mcore_optimizer, "chained_optimizers", [mcore_optimizer])
    return [part for part in parts if isinstance(part.optimizer, torch.optim.Adam)]


def _allocate(adam: torch.optim.Adam) -> None:
    """Zero moments and step 0 where there is no state yet."""
    for group in adam.param_groups:
        for p in group["params"]:
            if not adam.state[p]:
                adam.state[p] |= {
                    "step": torch.zeros((), dtype=torch.float32),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }


def _keep_step(part: Any) -> None:
    """Setting a parameter's state gives it a step of its own, as the parameter groups of the checkpoint have it."""
    if _SETTER in vars(part):
        return
    _STEP.get(type(part), _SETTER, source="93c254228283")
    original = getattr(part, _SETTER)

    def set_states(model_param: Any, tensors: dict[str, Any]) -> None:
        group, order = part.model_param_group_index_map[model_param]
        main_param = part.optimizer.param_groups[group]["params"][order]
        state = part.optimizer.state[main_param]
        state["step"] = state["step"].clone()
        original(model_param, {"step": state["step"], **tensors})

    _STEP.replace(part, _SETTER, set_states)
