"""Lets megatron-core be imported where there is no GPU though CUDA is installed: login nodes, build machines.

megatron-core 0.15 compiles a memory allocator as it is imported. With a CUDA build of torch and ``nvcc`` but no GPU,
torch has no architecture to compile it for and ends in an IndexError, which megatron-core does not catch. Where
Transformer Engine or Apex is installed it takes their optimisers and norms, which compute on a GPU only. Without a
GPU the allocator is never used and torch's Adam is what trains, so the one is not compiled and the others are not seen.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from typing import Any, NoReturn

import torch

from sdrrl_nemo.compat.registry import register

_ALLOCATOR = register("no-allocator", "megatron-core", "without a GPU nothing can be compiled for one at import")
_OPTIMISERS = register(
    "torch-optimisers", "megatron-core", "fused optimisers of Transformer Engine and Apex need a GPU"
)
GPU_ONLY = ("transformer_engine", "apex")
_state = {"protected": False}


def protect() -> None:
    """Call before the first import of ``megatron``; does nothing where there is a GPU, or the second time."""
    if _state["protected"] or torch.cuda.is_available():
        return
    _state["protected"] = True
    for package in GPU_ONLY:
        _hide(package)
    _import_without_compiling()


def _hide(package: str) -> None:
    """Importing ``package`` says from now on that it is not installed."""
    if importlib.util.find_spec(package) is None:
        return
    if package in sys.modules:
        _OPTIMISERS.fail(f"{package} was imported before, but there is no GPU; import it later or uninstall it")
    sys.modules[package] = None  # type: ignore[assignment]


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise RuntimeError("no GPU is present, so nothing is compiled for one")  # megatron-core expects and reports it


def _import_without_compiling() -> None:
    """The one module that compiles as it is imported, with torch's compiler switched off meanwhile."""
    import torch.utils.cpp_extension as compiler

    plain = _ALLOCATOR.replace(compiler, "load_inline", _refuse)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Failed to create unified memory mempool")
            import megatron.core.inference.unified_memory as allocator
    finally:
        _ALLOCATOR.replace(compiler, "load_inline", plain)
    if _ALLOCATOR.get(allocator, "has_unified_memory"):
        _ALLOCATOR.fail("an allocator was compiled all the same")
