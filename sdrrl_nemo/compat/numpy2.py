"""NumPy 2 removed ``numpy.product``, which megatron-core 0.15.3 calls as it saves and loads checkpoints.

Its three modules get a ``np`` of their own that has the function and is NumPy otherwise; NumPy itself is not touched.
"""

from __future__ import annotations

import importlib
import types

import numpy

from sdrrl_nemo.compat.registry import register

_PRODUCT = register("numpy-product", "megatron-core", "numpy 2 has no numpy.product, which saving a checkpoint calls")
MODULES = ("exchange_utils", "mapping", "validation")
"""Of megatron.core.dist_checkpointing."""


def apply() -> None:
    """Once, or again without effect; does nothing under NumPy 1."""
    if hasattr(numpy, "product"):
        return
    for name in MODULES:
        module = importlib.import_module(f"megatron.core.dist_checkpointing.{name}")
        if _PRODUCT.get(module, "np") is numpy:
            _PRODUCT.replace(module, "np", _numpy_with_product())


def _numpy_with_product() -> types.ModuleType:
    shim = types.ModuleType("numpy", "NumPy, with the function that version 2 removed.")
    vars(shim).update(product=numpy.prod, __getattr__=lambda name: getattr(numpy, name))
    return shim
