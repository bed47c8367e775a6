"""Lets megatron-core 0.15 and NeMo 2.7 run where there is no CUDA; inactive where there is.

Both libraries write ``device="cuda"``, ``.cuda()``, ``pin_memory=True`` and ``torch.cuda.*`` as literals in a few
dozen places, and check dtypes by the type name ``torch.cuda.FloatTensor``. ``adapt_to_cpu`` redirects exactly those:

* a TorchFunctionMode turns the device literal into ``cpu``, makes ``.cuda()`` the identity, drops ``pin_memory`` and
  answers ``Tensor.type()`` with the CUDA name mcore compares with;
* ``torch.cuda.current_device``, streams, events, synchronise and the RNG state get CPU meanings;
* NeMo's device fix after loading a checkpoint is a no-op.

One thing numerical is changed: the gradient norm is summed in float64. torch's fp32 norm of a large tensor on CPU is
off by 1e-4, which shows when layouts are compared (it clips a different amount); everything else is torch's own CPU
arithmetic. Call it once, before the first import of
``megatron`` or ``nemo``; it returns False and does nothing when a GPU is present.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

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


def adapt_to_cpu() -> bool:
    """Activate the adaptation once if no GPU is present; True when it is (now or already) active."""
    if _state["active"]:
        return True
    if torch.cuda.is_available():
        return False
    _state["active"] = True
    cuda: Any = torch.cuda
    cpu = torch.device("cpu")
    cuda.current_device = lambda: cpu
    cuda.set_device = lambda *a, **k: None
    cuda.synchronize = lambda *a, **k: None
    cuda.empty_cache = lambda: None
    cuda.Stream = cuda.Event = _Nothing
    cuda.stream = lambda s: contextlib.nullcontext()
    cuda.current_stream = cuda.default_stream = lambda *a: _Nothing()
    cuda.get_rng_state = lambda *a, **k: torch.get_rng_state()
    cuda.set_rng_state = lambda state, *a, **k: torch.set_rng_state(state)
    cuda.manual_seed = torch.manual_seed
    _CudaLiteralsToCpu().__enter__()

    import megatron.core.fusions.fused_bias_swiglu as mcore_swiglu
    import megatron.core.optimizer.clip_grads as mcore_clip
    import megatron.core.tensor_parallel.random as mcore_random
    import nemo.lightning.io.pl as nemo_checkpoint_io

    patched: Any = mcore_random
    patched._set_cuda_rng_state = lambda state, device=-1, graph_safe=False: torch.set_rng_state(state)
    patched._get_cuda_rng_state = lambda device="cuda", clone=False, graph_safe=False: torch.get_rng_state()
    clip: Any = mcore_clip
    clip.l2_norm_impl = _l2_norm
    # mcore's SwiGLU keeps one tensor fewer a layer also without torch.compile, which takes seconds at every start
    for name in ("swiglu", "swiglu_back", "bias_swiglu", "bias_swiglu_back"):
        setattr(mcore_swiglu, name, inspect.unwrap(getattr(mcore_swiglu, name)))
    # after loading, NeMo moves stray tensors to this rank's GPU; here every tensor is where it belongs
    reader: Any = nemo_checkpoint_io
    reader._fix_tensors_device = lambda checkpoint: checkpoint
    return True
