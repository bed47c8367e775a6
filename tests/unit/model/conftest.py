"""One process as a whole process group, for Megatron's models."""

from __future__ import annotations

from tests.unit.train.conftest import alone

__all__ = ["alone"]
