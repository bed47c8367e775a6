"""Lets megatron-core 0.15 load a checkpoint into torch's Adam, used where neither Apex nor Transformer Engine is.

Its DistributedOptimizer was tried with their fused Adams only. With torch's, the step is read from the state of a
parameter before there is any; it is expected among the tensors of the checkpoint, where it is not kept (it is in the
parameter groups); and all parameters are given one and the same tensor for it, which then counts every parameter.
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
    for part in getattr(mcore_optimizer, "chained_optimizers", [mcore_optimizer]):
        if isinstance(part, DistributedOptimizer) and isinstance(part.optimizer, torch.optim.Adam):
            _allocate(part.optimizer)
            _keep_step(part)


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
