#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Compile every Triton kernel for sm_80, sm_90 and sm_100 without a GPU, and say what the machine code does.

    python tools/bench/compile_kernels.py [--json out.json] [--markdown out.md] [--peer /path/to/Liger-Kernel/src]

For each kernel, dtype and target: registers, spills, shared memory, widest global load and store, occupancy, and how
often a row of logits is read and written. Exits with 1 if a kernel spills, keeps a stack, or an aligned row is loaded
in less than 128 bits. Traffic is counted in the PTX of the variant without a tail (EVEN): the bytes that all threads
load or store in 128-bit words, over the bytes of a tile. A loop body counts once and covers the row once, so the
quotient is reads or writes of the whole row; zeroing an ignored row is a separate path and its stores are taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "0"
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # the default of triton 3.9, said aloud; 3.10 will change it
os.environ.setdefault("TRITON_CACHE_DIR", tempfile.mkdtemp(prefix="compile_kernels_"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "kernels"))

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from tools.bench.kernels.compiled_variants import ITEMSIZE, Variant, variants

NVIDIA = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
ARCHITECTURES = (80, 90, 100)
SHARED_PER_SM = {80: 164 << 10, 90: 228 << 10, 100: 228 << 10}


@dataclass
class Report:
    """What the compiler made of a variant on one target."""

    kernel: str
    dtype: str
    block: int
    warps: int
    sm: int
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int
    occupancy: float
    load_bits: int
    store_bits: int
    rounds_to_nearest: bool | None
    row_reads: float | None
    row_writes: float | None


def _type(name: str, dtype: str) -> str:
    if name in ("x_ptr", "out_ptr"):
        return "*" + dtype
    if name in ("label_ptr", "subset_ptr", "count_ptr"):
        return "*i64"
    if name.endswith("_ptr"):
        return "*fp32"
    return (
        "fp32" if name in ("smoothing", "uniform", "z_loss", "vocab_size", "upstream", "expected", "softcap") else "i32"
    )


def _source(v: Variant) -> ASTSource:
    names = v.kernel.arg_names
    signature = {n: "constexpr" if n in v.constants else (v.signature or {}).get(n) or _type(n, v.dtype) for n in names}
    of_rows = ("x_stride", "out_stride", "n_cols", "X_stride")
    aligned = [n for n in names if n.endswith("_ptr") or (v.aligned and n in of_rows)]
    return ASTSource(
        fn=v.kernel,
        signature=signature,
        constexprs={(names.index(k),): value for k, value in v.constants.items()},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in aligned if signature[n] != "constexpr"},
    )


def _tool(*command: str | Path) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _spills(ptx: str, sm: int) -> tuple[int, int]:
    """(spilled bytes, stack bytes), by the newest bundled ptxas, which reads every PTX version triton writes."""
    found = re.search(r"\.target (\S+?)[,\s]", ptx)
    arch = found[1] if found else f"sm_{sm}"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as f:
        f.write(ptx)
        f.flush()
        for name in ("ptxas-blackwell", "ptxas"):
            text = _tool(NVIDIA / name, "-v", f"-arch={arch}", f.name, "-o", "/dev/null")
            m = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", text)
            if m:
                return int(m[2]) + int(m[3]), int(m[1])
    raise SdrrlError(f"no bundled ptxas could assemble for {arch}: {text.strip().splitlines()[:1]}")


def _occupancy(sm: int, registers: int, shared: int, warps: int) -> float:
    """Resident threads of an SM over 2048, from registers (64 Ki, by 256 a warp), shared memory and 32 blocks."""
    per_warp = -(-registers * 32 // 256) * 256
    blocks = min(2048 // (32 * warps), 65536 // (per_warp * warps), 32, SHARED_PER_SM[sm] // (shared + 1024))
    return blocks * warps * 32 / 2048


def _accesses(ptx: str, kind: str) -> list[int]:
    """Width in bits of every global load (``ld``) or store (``st``) instruction of a thread."""
    widths = []
    for m in re.finditer(rf"\b{kind}\.global((?:\.[\w:]+)*)", ptx):
        parts = m[1].split(".")
        vector = next((int(p[1:]) for p in parts if re.fullmatch(r"v\d", p)), 1)
        width = next((int(p[1:]) for p in parts if re.fullmatch(r"[bfus]\d+", p)), 0)
        widths.append(vector * width)
    return widths


def _rows(widths: list[int], v: Variant) -> float:
    """How often a tile goes by: bytes of the 128-bit accesses of all threads over the bytes of a tile."""
    return round(sum(w for w in widths if w >= 128) / 8 * 32 * v.warps / v.tile_bytes, 2)


def compile_variant(v: Variant, sm: int) -> Report:
    """Compile for ``sm`` and read registers, spills, widths and traffic from what came out."""
    compiled = triton.compile(_source(v), target=GPUTarget("cuda", sm, 32), options={"num_warps": v.warps})
    ptx = compiled.asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
        f.write(compiled.asm["cubin"])
        f.flush()
        usage = re.search(r"REG:(\d+) STACK:(\d+)", _tool(NVIDIA / "cuobjdump", "--dump-resource-usage", f.name))
    if usage is None:
        raise SdrrlError(f"cuobjdump says nothing about {v.name} for sm_{sm}")
    spilled, stack = _spills(ptx, sm)
    loads, stores = _accesses(ptx, "ld"), _accesses(ptx, "st")
    counted = v.counted and v.tile_bytes > 0
    registers = int(usage[1])
    return Report(
        kernel=v.name,
        dtype=v.dtype,
        block=int(v.constants.get("BLOCK", v.constants.get("BLOCK_SIZE", 0))),
        warps=v.warps,
        sm=sm,
        registers=registers,
        spill_bytes=spilled,
        stack_bytes=max(stack, int(usage[2])),
        shared_bytes=compiled.metadata.shared,
        occupancy=round(_occupancy(sm, registers, compiled.metadata.shared, v.warps), 2),
        load_bits=max(loads, default=0),
        store_bits=max(stores, default=0),
        rounds_to_nearest=("cvt.rn.bf16" in ptx) if v.dtype == "bf16" and v.tile_bytes and stores else None,
        row_reads=_rows(loads, v) if counted else None,
        row_writes=_rows(stores, v) - v.zero_path if counted else None,
    )


def liger_variant(source: Path) -> Variant:
    """Liger-Kernel's cross-entropy, bf16, V = 131072, from a checkout; nothing of it is kept here."""
    sys.path.insert(0, str(source))
    try:
        from liger_kernel.ops.cross_entropy import liger_cross_entropy_kernel as kernel
    except ImportError as e:
        raise SdrrlError(f"--peer {source}: no importable liger_kernel there ({e}); give its src folder") from None
    flags = ("RETURN_Z_LOSS", "RETURN_TOKEN_ACCURACY", "RETURN_PREDICTED_TOKENS", "HAS_WEIGHT", "HAS_SOFTCAPPING")
    absent = dict.fromkeys(("weight_ptr", "z_loss_ptr", "token_accuracy_ptr", "predicted_tokens_ptr", "softcap"))
    constants = {
        **dict.fromkeys(flags, False),
        **absent,
        "HAS_GRADIENTS": True,
        "BLOCK_SIZE": 32768,
        "lse_square_scale": 0.0,
        "label_smoothing": 0.0,
        "reduction": "mean",
    }
    types = {
        "X_ptr": "*bf16",
        "Y_ptr": "*i64",
        "loss_ptr": "*bf16",
        "sum_non_ignore_weight": "fp32",
        "weight_sum": "fp32",
    }
    return Variant("Liger-Kernel", kernel, "bf16", constants, 32, 32768 * 2, True, True, types)


def table(reports: Sequence[Report]) -> str:
    """Markdown, one line a kernel, dtype and target."""
    head: tuple[str, ...] = ("kernel", "dtype", "tile", "warps", "sm", "regs", "spill B", "smem B", "occupancy")
    head += ("load bits", "store bits", "reads/row", "writes/row")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in reports:
        cells = (
            r.kernel,
            r.dtype,
            r.block,
            r.warps,
            r.sm,
            r.registers,
            r.spill_bytes,
            r.shared_bytes,
            r.occupancy,
            r.load_bits,
            r.store_bits,
            "" if r.row_reads is None else r.row_reads,
            "" if r.row_writes is None else r.row_writes,
        )
        lines.append("| " + " | ".join(str(c) for c in cells) + " |")
    return "\n".join(lines) + "\n"


def faults(reports: Sequence[Report]) -> list[str]:
    """Why a build must not pass: spills, stack frames, narrow loads of aligned rows, a truncating store."""
    tests: list[tuple[str, Callable[[Report], bool]]] = [
        ("spills registers", lambda r: r.spill_bytes > 0 or r.stack_bytes > 0),
        ("loads aligned rows in less than 128 bits", lambda r: r.row_reads is not None and r.load_bits < 128),
        ("does not round bf16 to nearest", lambda r: r.rounds_to_nearest is False and bool(r.row_writes)),
    ]
    return [f"{r.kernel} {r.dtype} sm_{r.sm} {what}" for r in reports for what, bad in tests if bad(r)]


HEADER = f"""# What the compiler makes of the kernels

This page says what the GPU's compiler makes of each kernel (registers, spills, memory, occupancy, width of
loads), without a GPU.

Written by `python tools/bench/compile_kernels.py --markdown ... --peer <Liger-Kernel>/src`,
triton {triton.__version__}. See docs/kernels.md.

"""


def main(argv: Sequence[str]) -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--json", type=Path)
    p.add_argument("--markdown", type=Path)
    p.add_argument("--sm", type=int, nargs="+", default=list(ARCHITECTURES), choices=ARCHITECTURES)
    p.add_argument("--dtypes", nargs="+", default=sorted(ITEMSIZE), choices=sorted(ITEMSIZE))
    p.add_argument("--only", help="kernels whose name contains this")
    p.add_argument("--peer", type=Path, help="src folder of a Liger-Kernel checkout, to count its kernel the same way")
    args = p.parse_args(argv)
    chosen = [v for v in variants() if v.dtype in args.dtypes and (args.only or "") in v.name]
    reports = []
    for v in chosen:
        for sm in args.sm:
            reports.append(compile_variant(v, sm))
            print(table(reports[-1:]).splitlines()[-1], flush=True)
    bad = faults(reports)
    if args.peer:
        peers = [compile_variant(liger_variant(args.peer), sm) for sm in args.sm]
        print(table(peers))
        reports += peers
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in reports], indent=1) + "\n", encoding="utf-8")
    if args.markdown:
        args.markdown.write_text(HEADER + table(reports), encoding="utf-8")
    for line in bad:
        print(f"error: {line}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(run(main))
