"""Lets megatron-core 0.15 and NeMo 2.7 run where there is no CUDA; inactive where there is.

Both libraries write ``device="cuda"``, ``.cuda()``, ``pin_memory=True`` and ``torch.cuda.*`` as literals in a few
dozen places, and check dtypes by the type name ``torch.cuda.FloatTensor``. ``adapt_to_cpu`` redirects exactly those:

* a TorchFunctionMode turns the device literal into ``cpu``, makes ``.cuda()`` the identity, drops ``pin_memory`` and
  answers ``Tensor.type()`` with the CUDA name mcore compares with;
* ``torch.cuda.current_device``, streams, events, synchronise and the RNG state get CPU meanings;
* NeMo's device fix after loading a checkpoint is a no-op.

One thing numerical is changed: the gradient norm is summed in float64. torch's fp32 norm of a large tensor on CPU is
off by 1e-4, which shows when layouts are compared (it clips a different amount); everything else is torch's own CPU
arithmetic. ``compat/start.py`` calls it before the first import of ``megatron`` or ``nemo``.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from sdrrl_nemo.compat.registry import register

NORM_ELEMENTS = 1 << 20
"""Of a gradient at a time; torch's norm copies them to float64 first."""

_state = {"active": False}


def _is_cuda(device: Any) -> bool:
    return device is not None and str(device).startswith("cuda")


class _CudaLiteralsToCpu(TorchFunctionMode):
    """Redirects the literals; every other call passes through untouched."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            return func(*args).replace("torch.", "torch.cuda.", 1)
        if kwargs:
            if _is_cuda(kwargs.get("device")):
                kwargs = {**kwargs, "device": "cpu"}
            if kwargs.get("pin_memory"):
                kwargs = {**kwargs, "pin_memory": False}
        if func is torch.Tensor.to and len(args) > 1 and isinstance(args[1], (str, torch.device)) and _is_cuda(args[1]):
            args = (args[0], "cpu", *args[2:])
        return func(*args, **kwargs)


class _Nothing:
    """Stands for a CUDA stream or event: everything already happened in order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def record(self, *args: Any) -> None: ...

    def wait(self, *args: Any) -> None: ...

    def wait_stream(self, *args: Any) -> None: ...

    def synchronize(self) -> None: ...


def _l2_norm(chunk_size: int, overflow: Any, tensors: list[list[Any]], per_parameter: bool) -> tuple[Any, None]:
    """Norm over all tensors, float64 [1]; signature of the multi-tensor kernel that is absent here."""
    parts = (part for group in tensors for t in group for part in t.flatten().split(NORM_ELEMENTS))
    norms = [torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]
    return torch.linalg.vector_norm(torch.stack(norms))[None], None


_CUDA = register("cuda-calls", "torch", "libraries that know GPUs only run where there is none")
_RANDOM = register("random-states", "megatron-core", "states of the CPU's generator stand for those of a GPU")
_NORM = register("gradient-norm", "megatron-core", "the fused kernel is absent; summed in float64")
_SWIGLU = register(
    "swiglu-eager", "megatron-core", "torch.compile takes seconds at every start and gains nothing on CPU"
)
_LOADED = register("checkpoint-device", "nemo_toolkit", "loaded tensors are where they belong, no GPU is asked for")


def adapt_to_cpu() -> bool:
    """Activate the adaptation once if no GPU is present; True when it is (now or already) active."""
    if _state["active"]:
        return True
    if torch.cuda.is_available():
        return False
    _state["active"] = True
    _redirect_torch()
    _redirect_megatron()
    return True


def _redirect_torch() -> None:
    cpu = torch.device("cpu")
    for name, parameters, stand_in in (
        ("current_device", (), lambda: cpu),
        ("set_device", ("device",), lambda *a, **k: None),
        ("synchronize", ("device",), lambda *a, **k: None),
        ("empty_cache", (), lambda: None),
        ("stream", ("stream",), lambda s: contextlib.nullcontext()),
        ("current_stream", ("device",), lambda *a: _Nothing()),
        ("default_stream", ("device",), lambda *a: _Nothing()),
        ("get_rng_state", ("device",), lambda *a, **k: torch.get_rng_state()),
        ("set_rng_state", ("new_state", "device"), lambda state, *a, **k: torch.set_rng_state(state)),
        ("manual_seed", ("seed",), torch.manual_seed),
    ):
        _CUDA.replace(torch.cuda, name, stand_in, parameters=parameters)
    for name in ("Stream", "Event"):
        _CUDA.replace(torch.cuda, name, _Nothing)
    _CudaLiteralsToCpu().__enter__()


def _redirect_megatron() -> None:
    import megatron.core.fusions.fused_bias_swiglu as mcore_swiglu
    import megatron.core.optimizer.clip_grads as mcore_clip
    import megatron.core.tensor_parallel.random as mcore_random
    import nemo.lightning.io.pl as nemo_checkpoint_io

    def set_state(state: torch.Tensor, device: int = -1, graph_safe: bool = False) -> None:
        torch.set_rng_state(state)

    def get_state(device: Any = "cuda", clone: bool = False, graph_safe: bool = False) -> torch.Tensor:
        return torch.get_rng_state()

    _RANDOM.replace(mcore_random, "_set_cuda_rng_state", set_state, source="b179c9d95438")
    _RANDOM.replace(mcore_random, "_get_cuda_rng_state", get_state, source="aa26caaa069c")
    _NORM.replace(mcore_clip, "l2_norm_impl", _l2_norm, source="01526c55444a")
    # mcore's SwiGLU keeps one tensor fewer a layer also without torch.compile, which takes seconds at every start
    for name, source in (
        ("swiglu", "641a79eeb2f5"),
        ("swiglu_back", "45c978ece5b7"),
        ("bias_swiglu", "a363f9eff711"),
        ("bias_swiglu_back", "710649c46a0d"),
    ):
        eager = inspect.unwrap(getattr(mcore_swiglu, name))
        _SWIGLU.replace(mcore_swiglu, name, eager, source=source)
    # after loading, NeMo moves stray tensors to this rank's GPU; here every tensor is where it belongs
    _LOADED.replace(nemo_checkpoint_io, "_fix_tensors_device", lambda checkpoint: checkpoint, source="561d518d996e")
