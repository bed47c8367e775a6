"""GPUs from NVIDIA's data sheets: peak bf16 matrix throughput (dense, no sparsity), memory, bandwidths."""

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
    link_gb_s: float = 32.0
    """To the other GPUs of the node, one direction: NVLink, else PCIe."""
    network_gb_s: float = 25.0
    """Share of one GPU in its node's network, one direction, in the vendor's reference node: 25 is HDR InfiniBand
    (200 Gbit/s) per GPU, 50 is NDR. ``--network-gb-s`` says what a cluster really has."""
    generation: str = "ampere"
    """Which efficiencies of plan/speed.py apply."""


GPUS = (
    Gpu("a100-40g", 312.0, 40.0, 1555.0, ("A100", "40GB"), 300.0),
    Gpu("a100-80g", 312.0, 80.0, 2039.0, ("A100", "80GB"), 300.0),
    Gpu("a800-80g", 312.0, 80.0, 2039.0, ("A800",), 200.0),
    Gpu("h100-pcie", 756.0, 80.0, 2000.0, ("H100", "PCIe"), 64.0, 50.0, "hopper"),
    Gpu("h100-80g", 989.4, 80.0, 3350.0, ("H100",), 450.0, 50.0, "hopper"),
    Gpu("h800-80g", 989.4, 80.0, 3350.0, ("H800",), 200.0, 50.0, "hopper"),
    Gpu("h200", 989.4, 141.0, 4800.0, ("H200",), 450.0, 50.0, "hopper"),
    Gpu("b200", 2250.0, 180.0, 8000.0, ("B200",), 900.0, 50.0, "blackwell"),
    Gpu("l40s", 362.0, 48.0, 864.0, ("L40S",), 32.0, 25.0, "ada"),
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
