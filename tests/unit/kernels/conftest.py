"""Kernels under Triton's interpreter, made to round as the hardware does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton's interpreter, on CPU tensors; skipped where kernels are compiled for a GPU in this process.

    The interpreter truncates fp32 to bf16 (triton 3.9.0, runtime/interpreter.py, cast_impl passes no rounding mode)
    where the compiled kernel has cvt.rn.bf16x2.f32; tools/compile_kernels.py checks that instruction.
    """
    pytest.importorskip("triton", reason="Triton is not in the default environment: requirements/lock-kernels.txt")
    from kernels.cross_entropy_triton import interpreted

    if not interpreted():
        pytest.skip("kernels are compiled here, not interpreted: tests/gpu covers them")
    from triton.runtime import interpreter as module

    truncating = module._convert_float

    def to_nearest(data, source, target, rounding):  # type: ignore[no-untyped-def]
        if source.name == "fp32" and target.name == "bf16":
            rounded = torch.from_numpy(np.ascontiguousarray(data)).to(torch.bfloat16)
            return rounded.view(torch.int16).numpy().view(np.uint16).reshape(data.shape)
        return truncating(data, source, target, rounding)

    monkeypatch.setattr(module, "_convert_float", to_nearest)
    return None
