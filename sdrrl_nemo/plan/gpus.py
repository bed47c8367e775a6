"""GPUs and their peak bf16 matrix throughput (dense, no sparsity), memory and bandwidth, from NVIDIA's data sheets."""

from __future__ import annotations

from dataclasses import dataclass

from sdrrl_nemo.common.errors import SdrrlError


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU. ``marks``: parts of the name that CUDA reports, all of which it has."""

    name: str
    bf16_tflops: float
    memory_gb: float
    """Usable device memory, in units of 1e9 bytes."""
    bandwidth_gb_s: float
    marks: tuple[str, ...]


GPUS = (
    Gpu("a100-40g", 312.0, 40.0, 1555.0, ("A100", "40GB")),
    Gpu("a100-80g", 312.0, 80.0, 2039.0, ("A100", "80GB")),
    Gpu("a800-80g", 312.0, 80.0, 2039.0, ("A800",)),
    Gpu("h100-pcie", 756.0, 80.0, 2000.0, ("H100", "PCIe")),
    Gpu("h100-80g", 989.4, 80.0, 3350.0, ("H100",)),
    Gpu("h800-80g", 989.4, 80.0, 3350.0, ("H800",)),
    Gpu("h200", 989.4, 141.0, 4800.0, ("H200",)),
    Gpu("b200", 2250.0, 180.0, 8000.0, ("B200",)),
    Gpu("l40s", 362.0, 48.0, 864.0, ("L40S",)),
)


def gpu(name: str) -> Gpu:
    """By this project's name; SdrrlError lists the known ones."""
    for g in GPUS:
        if g.name == name.lower():
            return g
    raise SdrrlError(f"--gpu: '{name}' is not one of {', '.join(g.name for g in GPUS)}")


def gpu_of_device(device_name: str) -> Gpu | None:
    """By the name that CUDA reports; None for a GPU (or CPU) that is not in the table."""
    return next((g for g in GPUS if all(m in device_name for m in g.marks)), None)
