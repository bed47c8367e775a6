"""Every specialisation of the Triton kernels that the launcher can ask for, for tools/bench/compile_kernels.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sdrrl_kernels import cross_entropy_triton as launch
from sdrrl_kernels.cross_entropy_backward import gradient_kernel, rescale_kernel
from sdrrl_kernels.cross_entropy_forward import finish_rows_kernel, one_pass_kernel, row_statistics_kernel
from sdrrl_kernels.subset_sums import subset_sums_kernel
from sdrrl_nemo.common.errors import SdrrlError

ITEMSIZE = {"bf16": 2, "fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class Variant:
    """One specialisation to compile. ``tile_bytes``: bytes of logits a program handles at a time; 0: not per row."""

    name: str
    kernel: Any
    dtype: str
    constants: dict[str, Any]
    warps: int
    tile_bytes: int = 0
    zero_path: bool = False
    counted: bool = False
    signature: dict[str, str] | None = None
    aligned: bool = True
    """False: rows of logits that do not start at whole 16 bytes."""


def _logits_variants() -> Iterator[Variant]:
    for dtype, size in ITEMSIZE.items():
        stream = launch.stream_tile(131072, size)
        for label, extra in (("", {}), (" +smoothing", {"SMOOTHING": True})):
            limit = (launch.RESIDENT_COLUMNS_SMOOTHING if extra else launch.RESIDENT_COLUMNS)[size]
            resident = launch.resident_tile(limit, size, bool(extra))
            if resident is None:
                raise SdrrlError("RESIDENT_COLUMNS names a width that resident_tile refuses")
            for even in (True, False):
                tail = "" if even else " +tail"
                common = {"BLOCK": stream.block, "VEC": stream.vec, "EVEN": even}
                bytes_ = stream.block * size
                yield Variant(
                    f"statistics{label}{tail}",
                    row_statistics_kernel,
                    dtype,
                    {"SMOOTHING": False, "SOFTCAP": False, **common, **extra},
                    stream.warps,
                    bytes_,
                    False,
                    even,
                )
                yield Variant(
                    f"one pass, streamed{label}{tail}",
                    one_pass_kernel,
                    dtype,
                    {"SMOOTHING": False, "RESIDENT": False, **common, **extra},
                    stream.warps,
                    bytes_,
                    True,
                    even,
                )
            yield Variant(
                f"one pass, resident{label}",
                one_pass_kernel,
                dtype,
                {
                    "SMOOTHING": False,
                    "RESIDENT": True,
                    "EVEN": False,
                    "BLOCK": resident.block,
                    "VEC": resident.vec,
                    **extra,
                },
                resident.warps,
                resident.block * size,
                True,
                True,
            )
        for even in (True, False):
            yield Variant(
                "gradient" + ("" if even else " +tail"),
                gradient_kernel,
                dtype,
                {"BLOCK": stream.block, "VEC": stream.vec, "EVEN": even, "SOFTCAP": False},
                stream.warps,
                stream.block * size,
                True,
                even,
            )
        yield from _odd_rows(dtype, size)
        cap = {"BLOCK": stream.block, "VEC": stream.vec, "EVEN": False, "SOFTCAP": True}
        for name, kernel, constants in (
            ("softcap, statistics +smoothing +tail", row_statistics_kernel, {"SMOOTHING": True, **cap}),
            ("softcap, backward +tail", gradient_kernel, cap),
        ):
            yield Variant(name, kernel, dtype, constants, stream.warps, stream.block * size, True)
        yield Variant(
            "rescale",
            rescale_kernel,
            dtype,
            {"BLOCK": stream.block, "VEC": stream.vec},
            stream.warps,
            stream.block * size,
            False,
            True,
        )


def _odd_rows(dtype: str, size: int) -> Iterator[Variant]:
    """The launcher's plan for a vocabulary such as 32,003, with label smoothing, which takes more registers."""
    tile = launch.stream_tile(32003, size, wide=False)
    common = {"BLOCK": tile.block, "VEC": tile.vec, "EVEN": False}
    for name, kernel, more in (
        ("statistics", row_statistics_kernel, {"SMOOTHING": True, "SOFTCAP": False}),
        ("one pass, streamed", one_pass_kernel, {"SMOOTHING": True, "RESIDENT": False}),
        ("gradient", gradient_kernel, {"SOFTCAP": False}),
    ):
        yield Variant(f"{name}, odd rows", kernel, dtype, common | more, tile.warps, tile.block * size, aligned=False)


def variants() -> list[Variant]:
    """Everything the launcher can ask for, by dtype; per-row kernels for some tensor-parallel sizes."""
    small = [
        Variant(
            f"finish, {world} rank(s)",
            finish_rows_kernel,
            "fp32",
            {"WORLD": world, "STATISTICS": k, "BLOCK": launch.ROW_TILE},
            4,
        )
        for world, k in ((1, 3), (2, 3), (8, 3), (8, 4))
    ]
    return [*_logits_variants(), *small, Variant("subset sums", subset_sums_kernel, "fp32", {"BLOCK": 1024}, 4)]
