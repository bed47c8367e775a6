"""Which of bf16 and fp32 a machine is faster in: the meaning of ``auto`` in configurations."""

from __future__ import annotations

from functools import cache
from pathlib import Path

AUTO = "auto"
CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What /proc/cpuinfo calls native bf16 products on x86-64 and Arm. Without one of them torch's bf16 products on CPU are
several times slower than its fp32 ones."""


@cache
def has_fast_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True where bf16 matrix products are native: on the GPU if there is one, else on the CPU."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}
    return bool(flags & CPU_FLAGS)


def resolve(name: str, bf16: str, fp32: str) -> str:
    """``name`` itself, or for ``auto`` the caller's word for whichever is faster here."""
    if name != AUTO:
        return name
    return bf16 if has_fast_bf16() else fp32
