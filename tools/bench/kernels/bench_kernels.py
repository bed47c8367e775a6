#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../../python" "$0" "$@"'
"""The loss kernels against every installed peer on one GPU, in one process and within a budget of seconds.

    python tools/bench/kernels/bench_kernels.py --device cuda --output work/bench/kernels.json [--seconds 220]
    python tools/bench/kernels/bench_kernels.py --device cpu --small     # the same code on tiny shapes

First it measures what the machine reaches at most: bytes/s of a copy and operations/s of a bf16 product. Each case's
time is then given as a share of these: for the flow ``logits`` the least bytes (each logit read once, and written once
where the gradient is wanted) a second over the copy's, for the flow ``linear`` the operations of its products (one
forward, three with gradients) over the product's. ``tp`` emulates tensor parallelism by one rank's slice of the
vocabulary, without its collectives. Cases come in the order of their worth; what the budget leaves out and what is not
installed is named. JSON lines and a table go to stdout, everything together into ``--output``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "kernels"))

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.plan.report import table
from tools.bench.kernels.installed_peers import PEERS, installed, installed_version
from tools.bench.kernels.loss_cases import Case, Step
from tools.bench.kernels.torch_formulas import HAS_NATIVE, IMPLEMENTATIONS, NATIVE
from tools.bench.loss_kernels import timed

WIDTHS = {32000: 4096, 49152: 576, 128256: 4096, 151936: 896, 262144: 1152}
"""Hidden size by vocabulary: Llama-2-7B, SmolLM2-135M, Llama-3-8B, Qwen2.5-0.5B, Gemma-3-1B."""
TOKENS = (4096, 8192, 16384)
FIRST = ((8192, 128256), (8192, 32000), (8192, 49152), (8192, 151936), (8192, 262144))
"""(tokens, vocabulary) in order of worth: each vocabulary once; then slices of a rank; then the rest of the grid."""
SLICES = ((8192, 128256, 8), (8192, 262144, 8))
COMPILED = frozenset(FIRST[:3])
"""Shapes that torch.compile is measured at: each costs seconds of compilation."""
COMPILE = "torch.compile"
FORMULAS = {
    "logits": ("ours", "ours one pass", "torch eager", COMPILE),
    "linear": ("ours", *((NATIVE,) if HAS_NATIVE else ()), "torch eager", COMPILE),
}
PASSES = ("forward+backward", "forward")


@dataclass(frozen=True)
class Sizes:
    """What is measured: one rank's part of it where ``tp`` is more than 1."""

    flow: str
    n: int
    vocab: int
    width: int
    tp: int = 1

    @property
    def columns(self) -> int:
        return self.vocab // self.tp


def sizes(small: bool) -> Iterator[Sizes]:
    """Every shape, the most telling first."""
    if small:
        yield from (Sizes(flow, 16, 640, 32, tp) for tp in (1, 4) for flow in PEERS)
        return
    grid = [(n, vocab) for vocab in WIDTHS for n in TOKENS if (n, vocab) not in FIRST]
    shapes = [*((n, v, 1) for n, v in FIRST), *SLICES, *((n, v, 1) for n, v in grid)]
    yield from (Sizes(flow, n, v, WIDTHS[v], tp) for n, v, tp in shapes for flow in PEERS)


def ceilings(device: str) -> dict[str, float]:
    """Measured: GB/s of a copy, read and written bytes together, and TFLOP/s of a product in bf16."""
    elements, side = (1 << 29, 8192) if device == "cuda" else (1 << 20, 256)
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    a, b = (torch.ones(side, side, device=device, dtype=torch.bfloat16) for _ in "ab")
    copied, multiplied = (_median_seconds(step, device) for step in (lambda: target.copy_(source), lambda: a @ b))
    return {"copy_gb_s": 2 * 4 * elements / copied / 1e9, "bf16_tflops": 2 * side**3 / multiplied / 1e12}


def _median_seconds(step: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(12):
        begun = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


def shares(s: Sizes, passes: str, seconds: float, reached: dict[str, float]) -> dict[str, float]:
    """Achieved rate of the least work, and its share of what the machine reaches."""
    both = passes == PASSES[0]
    if s.flow == "logits":
        rate = 2 * (2 if both else 1) * s.n * s.columns / seconds / 1e9
        return {"gb_s": rate, "share_of_copy": rate / reached["copy_gb_s"]}
    rate = 2 * (3 if both else 1) * s.n * s.columns * s.width / seconds / 1e12
    return {"tflops": rate, "share_of_product": rate / reached["bf16_tflops"]}


def one(s: Sizes, name: str, step: Step, passes: str, device: str, reached: dict[str, float]) -> dict[str, Any]:
    """A case's row; an implementation that fails is a row too."""
    row: dict[str, Any] = {**asdict(s), "pass": passes, "implementation": name}
    grad = passes == PASSES[0]
    try:
        with torch.set_grad_enabled(grad):
            case = Case(device, "bf16", s.n, s.columns, s.width, s.flow, grad=grad)
            row |= timed(step, case, repeat=5, seconds=0.1)
    except Exception as e:  # a peer that fails must not end the others
        return {**row, "error": f"{type(e).__name__}: {' '.join(str(e).split())}"[:300]}
    finally:
        case = None  # type: ignore[assignment]
        if device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
    return row | shares(s, passes, max(row["ms"] / 1e3, 1e-9), reached)


def implementations(s: Sizes, peers: dict[str, Step], small: bool) -> Iterator[tuple[str, Step]]:
    """Ours first, then torch's, then the installed ones."""
    for name in FORMULAS[s.flow]:
        if name != COMPILE or (not small and (s.n, s.vocab) in COMPILED and s.tp == 1):
            yield name, IMPLEMENTATIONS[s.flow][name]
    yield from peers.items()


def measured(device: str, seconds: float, small: bool) -> Iterator[dict[str, Any]]:
    """Lines of the report: ceilings, what is absent, a row a case, and what the budget left out."""
    begun = time.monotonic()
    reached = ceilings(device)
    yield {"ceilings": reached}
    found = {flow: installed(flow) for flow in PEERS}
    absent = {f"{flow}: {name}": why for flow, (_, lacking) in found.items() for name, why in lacking.items()}
    if not HAS_NATIVE:
        absent[f"linear: {NATIVE}"] = f"came with torch 2.13, this is {torch.__version__}"
    yield {"absent": absent}
    gc.freeze()  # what was imported need not be looked through again before every case
    left: list[str] = []
    for s in sizes(small):
        torch.compiler.reset()  # each shape is compiled for its own sizes, as in a process of its own
        for name, step in implementations(s, found[s.flow][0], small):
            for passes in PASSES:
                if time.monotonic() - begun > seconds:
                    left.append(f"{s.flow} {s.n}x{s.vocab}/{s.tp} {name} {passes}")
                else:
                    yield one(s, name, step, passes, device, reached)
    yield {"skipped": left, "seconds": time.monotonic() - begun, "compiled_at": sorted(COMPILED)}


def lines_of(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table, without the cases that failed, which follow it with their reasons."""
    head = ["flow", "tokens", "vocabulary", "tp", "implementation", "pass", "ms", "of the ceiling", "MiB"]
    body = []
    for r in rows:
        if "ms" in r:
            share = r.get("share_of_copy", r.get("share_of_product", 0.0))
            cells = [r["flow"], r["n"], r["vocab"], r["tp"], r["implementation"], r["pass"], f"{r['ms']:.2f}"]
            body.append([*map(str, cells), f"{share:.1%}", f"{r['peak_mib']:.0f}"])
    yield from table([head, *body])
    for r in rows:
        if "error" in r:
            yield f"{r['flow']} {r['n']}x{r['vocab']} {r['implementation']} {r['pass']}: {r['error']}"


def main(argv: Sequence[str]) -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--device", choices=("cpu", "cuda"), required=True)
    p.add_argument("--output", type=Path, help="JSON of the whole report")
    p.add_argument("--seconds", type=float, default=220.0, help="begin no case after so many")
    p.add_argument("--small", action="store_true", help="tiny shapes, to try the code; what a CPU is measured at")
    args = p.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SdrrlError("--device cuda: torch sees no CUDA device; use --device cpu --small or a machine with a GPU")
    if args.device == "cpu" and not args.small:
        raise SdrrlError("--device cpu: the shapes are a GPU's; add --small, or use tools/bench/loss_kernels.py")
    lines = []
    # the tiny shapes try the code: compiling for them would take minutes and say nothing
    with torch.compiler.set_stance("force_eager") if args.small else contextlib.nullcontext():
        for line in measured(args.device, args.seconds, args.small):
            print(json.dumps(line), flush=True)
            lines.append(line)
    gc.unfreeze()
    rows = [line for line in lines if "implementation" in line]
    others = {k: v for line in lines if "implementation" not in line for k, v in line.items()}
    card = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    packages = sorted({"torch", "triton", *(peer.package for peers in PEERS.values() for peer in peers.values())})
    about = {"card": card, "small": args.small, "versions": {name: installed_version(name) for name in packages}}
    if args.output:
        write_json(args.output, {**about, **others, "rows": rows})
    print("\n".join(["", *lines_of(rows), ""]))
    for name, why in others["absent"].items():
        print(f"absent: {name}: {why}")
    print(f"{card}: {len(rows)} cases in {others['seconds']:.0f} s, {len(others['skipped'])} left out by the budget")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
