#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Time, peak memory and exactness of the loss against torch's own and other projects' formulas, one run, one table.

    python tools/bench/loss_kernels.py --device cpu --output work/bench/kernels_cpu.jsonl [--minutes 20]

Every case runs in a process of its own (a clean allocator and peak counter), the most telling first; the same command
goes on where it stopped. Two flows: ``logits`` (loss and gradient of given logits) and ``linear`` (output projection
included: gradients of hidden states and weight), the second also with 40% of the rows carrying loss. Time is the
median of the repetitions after warm-up, with the 20th and 80th percentile beside it. Memory is the peak above the
inputs: allocator statistics on CUDA, the resident set on CPU. The error of the weight's gradient is taken against
float64 on 256 of its rows. Installed kernels of others on a GPU: tools/bench/kernels/bench_kernels.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "kernels"))

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from tools.bench.kernels.loss_cases import DTYPES, Case, Peak, Step, gradient_error
from tools.bench.kernels.torch_formulas import IMPLEMENTATIONS, WEIGHTED

LIVE = 0.4
"""Share of rows that carry loss in the packed demo data: 176,545 answer tokens of 428,326."""
SLOW = 10.0
"""Seconds: a step that takes longer is timed once, the step after the first, whose memory is measured too."""


@dataclass(frozen=True)
class Shape:
    """What all implementations of one row of the table compute."""

    flow: str
    dtype: str
    vocab: int
    n: int
    live: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.flow}-{self.dtype}-{self.vocab}-{self.n}-{self.live:g}"


def seconds_of(step: Step, case: Case) -> float:
    """One step with the gradients of the last cleared before."""
    case.clear()
    if case.device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step(case)
    if case.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def timed(step: Step, case: Case, repeat: int, seconds: float) -> dict[str, Any]:
    """Milliseconds, their spread and the peak of one implementation; the case's gradients are left as they are."""
    first = seconds_of(step, case)
    with Peak(case.device) as peak:
        second = seconds_of(step, case)
    times = [second] if second > SLOW else []
    least = 1 if second > SLOW else repeat
    while len(times) < least or (sum(times) < seconds and len(times) < 50):
        times.append(seconds_of(step, case))
    low, middle, high = torch.tensor(times).double().quantile(torch.tensor([0.2, 0.5, 0.8]).double()).tolist()
    return {
        "ms": round(middle * 1e3, 3),
        "ms_p20_p80": [round(low * 1e3, 3), round(high * 1e3, 3)],
        "first_ms": round(first * 1e3, 1),
        "repeats": len(times),
        "peak_mib": round(peak.bytes / 2**20, 1),
    }


def measure(shape: Shape, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One case in this process."""
    torch.set_num_threads(args.threads)
    case = Case(args.device, shape.dtype, shape.n, shape.vocab, args.width, shape.flow, shape.live)
    step = IMPLEMENTATIONS[shape.flow][name]
    row = {**vars(shape), "device": args.device, "width": args.width, "threads": args.threads, "implementation": name}
    row |= timed(step, case, args.repeat, args.seconds)
    row["loss"] = case.loss
    if shape.flow == "linear":
        kept = args.references / f"{shape.name}-{args.width}.pt"
        row["dw_error"] = gradient_error(case, name in WEIGHTED, kept)
    return row


def shapes(args: argparse.Namespace) -> Iterator[Shape]:
    """The few rows with little live first, then the grid, small shapes before large ones."""
    if "linear" in args.flows and args.live < 1:
        vocab, n = sorted(args.vocabs)[len(args.vocabs) // 2], max(args.tokens)
        yield from (Shape("linear", dtype, vocab, n, args.live) for dtype in args.dtypes)
    sizes = sorted(((v, n) for v in args.vocabs for n in args.tokens), key=lambda s: s[0] * s[1])
    yield from (Shape(flow, dtype, v, n) for v, n in sizes for flow in args.flows for dtype in args.dtypes)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--device", choices=("cpu", "cuda"), required=True)
    p.add_argument("--output", type=Path, help="JSON lines, one a case; appended to, cases already there are skipped")
    p.add_argument("--minutes", type=float, default=float("inf"), help="begin no case after so many")
    p.add_argument("--flows", nargs="+", choices=sorted(IMPLEMENTATIONS), default=["linear", "logits"])
    p.add_argument("--dtypes", nargs="+", choices=sorted(DTYPES), default=["bf16", "fp32"])
    p.add_argument("--vocabs", nargs="+", type=int, default=[32000, 49152, 128256])
    p.add_argument("--tokens", nargs="+", type=int, default=[512, 2048])
    p.add_argument("--live", type=float, default=LIVE, help="share of live rows in the extra cases; 1: none of them")
    p.add_argument("--width", type=int, default=576, help="hidden size of the linear flow")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeat", type=int, default=3, help="repetitions at least")
    p.add_argument("--seconds", type=float, default=0.5, help="repeat until this much time was measured")
    p.add_argument("--references", type=Path, default=Path("work/bench/references"), help="float64 gradients are kept")
    p.add_argument("--only", nargs=6, help=argparse.SUPPRESS)  # flow dtype vocab n live implementation
    return p


def in_a_process(shape: Shape, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The case's row; of an implementation that fails its last words under ``error``."""
    given = {k: str(v) for k, v in vars(args).items() if k in ("device", "width", "threads", "repeat", "seconds")}
    options = [f"--{k}={v}" for k, v in given.items()] + [f"--references={args.references}"]
    only = [shape.flow, shape.dtype, str(shape.vocab), str(shape.n), str(shape.live), name]
    command = [sys.executable, __file__, *options, "--only", *only]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    if out.returncode:
        why = (out.stderr.strip().splitlines() or ["no message"])[-1]
        return {**vars(shape), "implementation": name, "error": why}
    row: dict[str, Any] = json.loads(out.stdout.strip().splitlines()[-1])
    return row


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SdrrlError("--device cuda: torch sees no CUDA device; use --device cpu or a machine with a GPU")
    if args.only:
        flow, dtype, vocab, n, live, name = args.only
        print(json.dumps(measure(Shape(flow, dtype, int(vocab), int(n), float(live)), name, args)))
        return 0
    rows = [json.loads(line) for line in args.output.read_text().splitlines()] if _exists(args.output) else []
    done = {(*(row[k] for k in ("flow", "dtype", "vocab", "n", "live")), row["implementation"]) for row in rows}
    every = ((shape, name) for shape in shapes(args) for name in IMPLEMENTATIONS[shape.flow])
    todo = [(shape, name) for shape, name in every if (*vars(shape).values(), name) not in done]
    begun = time.monotonic()
    for i, (shape, name) in enumerate(todo):
        if time.monotonic() - begun > 60 * args.minutes:
            print(f"{len(todo) - i} cases are left; the same command goes on", file=sys.stderr)
            return 0
        line = json.dumps(in_a_process(shape, name, args))
        print(line, flush=True)
        if args.output:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            with args.output.open("a", encoding="utf-8") as f:
                f.write(line + "\n")
    return 0


def _exists(path: Path | None) -> bool:
    return path is not None and path.is_file()


if __name__ == "__main__":
    sys.exit(run(main))
