#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Prediction, not measurement: bytes, flops and the least time of the loss on A100, H100 and B200.

    python tools/bench/roofline.py [--tokens 16384] [--vocab 131072] [--dtype bf16] [--width 4096]
    python tools/bench/roofline.py --published    # the same arithmetic beside times that other projects published

Time = the larger of bytes / bandwidth and exponentials / rate of the special function units, at the given share of the
peak. Bandwidths, dense bf16 rates, SM counts and clocks are NVIDIA's datasheet numbers; 16 exponentials an SM a clock.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdrrl_nemo.common.cli import run

ITEMSIZE = {"bf16": 2, "fp16": 2, "fp32": 4}
ACHIEVED = 0.85
"""Share of the peak bandwidth that streaming kernels reach in practice (0.80 to 0.92 for copies of this size)."""


@dataclass(frozen=True)
class Gpu:
    """Datasheet: memory bandwidth TB/s, dense bf16 TFLOP/s, SMs, boost clock GHz, L2 cache MB.

    ``products``: share of the dense rate that a linear cross-entropy's products reach. Hopper's and Blackwell's are
    those of the published rows below, A100's is an assumption.
    """

    name: str
    bandwidth: float
    tensor: float
    sms: int
    clock: float
    l2: float
    products: float


A100 = Gpu("A100 80GB SXM", 2.039, 312, 108, 1.41, 40, 0.70)
H100 = Gpu("H100 SXM", 3.35, 989, 132, 1.83, 50, 0.75)
H200 = Gpu("H200 SXM", 4.8, 989, 132, 1.83, 50, 0.75)
B200 = Gpu("B200", 8.0, 2250, 148, 1.85, 126, 0.65)
GPUS = (A100, H100, B200)

HOST = 0.34
"""Milliseconds of Liger-Kernel's cross-entropy outside its kernel: it counts labels and checks their range, which waits
for the device four times. Fitted to the published rows, like L2_HITS."""
L2_HITS = 0.5
"""Share of a streamed row's second read that comes from the L2 cache where the rows in flight fit it, else none."""


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


@dataclass(frozen=True)
class Published:
    """A time that somebody else measured: ``tokens`` x ``vocab`` logits, or with ``width`` a linear cross-entropy."""

    what: str
    gpu: Gpu
    tokens: int
    vocab: int
    ms: float
    source: str
    width: int = 0
    itemsize: int = 2
    passes: float = 3.0
    """Over the logits: two reads and a write, two more where the upstream gradient is not 1."""
    chunks: int = 0
    """Times that the weight's fp32 gradient is added to, each time through copies: 20 bytes a weight."""
    reason: str = ""
    """Why the prediction is more than 5% off."""

    def predicted(self) -> float:
        """Milliseconds."""
        elements = float(self.tokens) * self.vocab
        rate = self.gpu.bandwidth * 1e12 * ACHIEVED
        if not self.width:
            fits = self.gpu.sms * self.vocab * self.itemsize <= self.gpu.l2 * 1e6  # one program an SM
            return HOST + elements * self.itemsize * (self.passes - L2_HITS * fits) / rate * 1e3
        products = 6 * elements * self.width / (self.gpu.tensor * 1e12 * self.gpu.products)
        return (products + self.chunks * 20 * self.vocab * self.width / rate) * 1e3


TRITON, CUTE, QUACK = "Liger Triton", "Liger CuTe", "quack"
MANY_CHUNKS = (
    "32 chunks of 256 rows: products of so few rows are slower than large ones, and the bytes of the weight's gradient "
    "with its copies, 82 ms, and products at the large ones' rate, 35 ms, leave 37 ms that neither explains"
)
FEW_ROWS = "reading the weight and writing its gradient, which this arithmetic leaves out, is no longer small"
PUBLISHED = (
    Published(f"{TRITON} cross-entropy", H100, 8192, 32000, 0.7975, "Liger-Kernel #1290"),
    Published(f"{TRITON} cross-entropy", H100, 8192, 128256, 2.21, "Liger-Kernel #1290"),
    Published(f"{TRITON} cross-entropy", H100, 16384, 128256, 4.08, "Liger-Kernel #1290"),
    Published(f"{TRITON} forward, fp32", A100, 16384, 131072, 15.0, "its benchmark data, 0.2.1", itemsize=4),
    Published(f"{TRITON} full, fp32", A100, 16384, 131072, 25.2, "its benchmark data, 0.2.1", itemsize=4, passes=5),
    Published(f"{CUTE} linear", H200, 8192, 128256, 34.4, "Liger-Kernel #1356", 4096),
    Published(f"{QUACK} linear", H200, 8192, 128256, 35.5, "Liger-Kernel #1356", 4096),
    Published(f"{TRITON} linear", H200, 8192, 128256, 154, "Liger-Kernel #1356", 4096, chunks=32, reason=MANY_CHUNKS),
    Published(f"{CUTE} linear", B200, 8192, 128256, 17.51, "Liger-Kernel #1339", 4096),
    Published(f"{CUTE} linear", B200, 8192, 32000, 4.52, "Liger-Kernel #1339", 4096),
    Published(f"{CUTE} linear", B200, 8192, 262144, 36.30, "Liger-Kernel #1339", 4096),
    Published(f"{CUTE} linear", B200, 1024, 128256, 2.52, "Liger-Kernel #1339", 4096, reason=FEW_ROWS),
)


def published_lines() -> Iterator[str]:
    """Markdown: each published time beside the prediction, then the reasons."""
    yield "| what | GPU | shape | published ms | predicted ms | off | source |"
    yield "|---|---|---|---|---|---|---|"
    for row in PUBLISHED:
        shape = f"{row.tokens}x{row.vocab}" + (f", H = {row.width}" if row.width else "")
        ms = row.predicted()
        cells = [row.what, row.gpu.name, shape, f"{row.ms:g}", f"{ms:.2f}", f"{ms / row.ms - 1:+.1%}", row.source]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    yield from (f"- {row.what}, {row.gpu.name}, {row.tokens} rows: {row.reason}." for row in PUBLISHED if row.reason)


def main(argv: Sequence[str]) -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--tokens", type=int, default=16384)
    p.add_argument("--vocab", type=int, default=131072)
    p.add_argument("--dtype", choices=sorted(ITEMSIZE), default="bf16")
    p.add_argument("--width", type=int, default=4096, help="hidden size of the fused linear form")
    p.add_argument("--published", action="store_true", help="compare with times that other projects published")
    args = p.parse_args(argv)
    if args.published:
        print("\n".join(published_lines()))
        return 0
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
    cells = [f"{flops / (g.tensor * 1e12 * g.products) * 1e3:.1f}" for g in GPUS]
    shares = " / ".join(f"{g.products:.0%}" for g in GPUS)
    name = f"fused linear, H = {args.width}: three products, {shares} of dense peak"
    print(f"| {name} | - | - | " + " | ".join(cells) + " |")
    rows_in_flight = [min(g.l2 * 1e6, g.sms * 4 * args.vocab * size) / (g.sms * 4 * args.vocab * size) for g in GPUS]
    shares = ", ".join(f"{g.name} {share:.0%}" for g, share in zip(GPUS, rows_in_flight, strict=True))
    print(f"\nStreamed one pass: rows in flight (4 programs an SM) that fit the L2 cache: {shares}.")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
