#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Prediction, not measurement: bytes, flops and the least time of the loss on A100, H100 and B200.

    python tools/bench/roofline.py [--tokens 16384] [--vocab 131072] [--dtype bf16] [--width 4096]

Time = the larger of bytes / bandwidth and exponentials / rate of the special function units, at the given share of the
peak. Bandwidths, dense bf16 rates, SM counts and clocks are NVIDIA's datasheet numbers; 16 exponentials an SM a clock.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdrrl_nemo.common.cli import run

ITEMSIZE = {"bf16": 2, "fp16": 2, "fp32": 4}
ACHIEVED = 0.85
"""Share of the peak bandwidth that streaming kernels reach in practice (0.80 to 0.92 for copies of this size)."""


@dataclass(frozen=True)
class Gpu:
    """Datasheet: memory bandwidth TB/s, dense bf16 TFLOP/s, SMs, boost clock GHz, L2 cache MB."""

    name: str
    bandwidth: float
    tensor: float
    sms: int
    clock: float
    l2: float


GPUS = (
    Gpu("A100 80GB SXM", 2.039, 312, 108, 1.41, 40),
    Gpu("H100 SXM", 3.35, 989, 132, 1.83, 50),
    Gpu("B200", 8.0, 2250, 148, 1.85, 126),
)


@dataclass(frozen=True)
class Plan:
    """Passes over the logits that reach global memory, and exponentials an element."""

    name: str
    reads: int
    writes: int
    exponentials: float


def plans(vec: int) -> tuple[Plan, ...]:
    """Ours and Liger's; ``vec`` elements make a 128-bit word."""
    once = 1 + 1 / vec  # the online softmax rescales a running sum once a word
    return (
        Plan("ours, one pass, row in registers (V <= 32768)", 1, 1, 1),
        Plan("ours, forward only", 1, 0, once),
        Plan("ours, backward only", 1, 1, 1),
        Plan("ours, forward + backward; and one pass, streamed, without L2", 2, 1, once + 1),
        Plan("Liger-Kernel cross_entropy, without L2", 2, 1, 2),
        Plan("torch eager fp32 (log_softmax, nll, both backwards, casts)", 0, 0, 0),
    )


def eager_bytes(elements: float, itemsize: int) -> float:
    """Cast up (r + 4w), log_softmax (4r + 4w), its backward (4r + 4w, nll gradient 4w + 4r), cast down (4r + w)."""
    return elements * (itemsize + 4 + 4 + 4 + 4 + 4 + 4 + 4 + 4 + itemsize)


def predict(gpu: Gpu, plan: Plan, elements: float, itemsize: int) -> tuple[float, float, str]:
    """(GB moved, ms, what limits) at ACHIEVED of the peak bandwidth."""
    size = elements * itemsize * (plan.reads + plan.writes) if plan.reads else eager_bytes(elements, itemsize)
    memory = size / (gpu.bandwidth * 1e12 * ACHIEVED)
    exponentials = elements * (plan.exponentials or 2) / (gpu.sms * 16 * gpu.clock * 1e9)
    return size / 1e9, max(memory, exponentials) * 1e3, "memory" if memory >= exponentials else "exponentials"


def main(argv: Sequence[str]) -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--tokens", type=int, default=16384)
    p.add_argument("--vocab", type=int, default=131072)
    p.add_argument("--dtype", choices=sorted(ITEMSIZE), default="bf16")
    p.add_argument("--width", type=int, default=4096, help="hidden size of the fused linear form")
    args = p.parse_args(argv)
    size, elements = ITEMSIZE[args.dtype], float(args.tokens) * args.vocab
    print(
        f"Prediction for {args.tokens} tokens x V = {args.vocab} {args.dtype}, at {ACHIEVED:.0%} of peak bandwidth.\n"
    )
    print("| plan | reads + writes | GB | " + " | ".join(f"{g.name} ms" for g in GPUS) + " |")
    print("|" + "---|" * (3 + len(GPUS)))
    for plan in plans(16 // size):
        rows = [predict(g, plan, elements, size) for g in GPUS]
        moved = f"{plan.reads} + {plan.writes}" if plan.reads else "10 passes, mostly fp32"
        cells = [f"{ms:.2f}" + ("" if why == "memory" else " (exp)") for _, ms, why in rows]
        print(f"| {plan.name} | {moved} | {rows[0][0]:.2f} | " + " | ".join(cells) + " |")
    flops = 3 * 2 * elements * args.width
    cells = [f"{flops / (g.tensor * 1e12 * 0.7) * 1e3:.1f}" for g in GPUS]
    print(f"| fused linear, H = {args.width}: three products, 70% of dense peak | - | - | " + " | ".join(cells) + " |")
    rows_in_flight = [min(g.l2 * 1e6, g.sms * 4 * args.vocab * size) / (g.sms * 4 * args.vocab * size) for g in GPUS]
    shares = ", ".join(f"{g.name} {share:.0%}" for g, share in zip(GPUS, rows_in_flight, strict=True))
    print(f"\nStreamed one pass: rows in flight (4 programs an SM) that fit the L2 cache: {shares}.")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
