"""Kernels under Triton's interpreter, made to round as the hardware does."""

from __future__ import annotations

import pytest


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter, on CPU tensors; skipped where kernels are compiled for a GPU in this process."""
    from sdrrl_kernels.cross_entropy_triton import interpreted
    from tests.unit.kernels import rounding

    if not interpreted():
        pytest.skip("kernels are compiled here, not interpreted: tests/gpu covers them")
    monkeypatch.setattr(rounding.interpreter, "_convert_float", rounding.to_nearest)
