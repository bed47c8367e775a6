"""Times of the loss kernels in one process, by the functions of tools/bench/loss_kernels.py; a line of JSON a case.

    python tools/gpu/kernel_times.py SECONDS [small]

The first line has what the machine reaches at most: bytes/s of a copy, operations/s of a product in bf16.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from sdrrl_nemo.common.cli import run
from tools.bench.loss_kernels import measure

LOGITS = ((4096, 32000), (4096, 128256), (16384, 32000))
LINEAR = ((8192, 49152, 576), (8192, 32000, 4096))
NAMES = {
    "logits": ("ours", "ours one pass", "torch eager", "torch.compile", "Liger math"),
    "linear": ("ours", "torch eager", "torch.compile", "Liger math"),
}


def cases(small: bool) -> Iterator[tuple[str, int, int, int, str]]:
    """(flow, tokens, vocabulary, width, implementation), the most telling first."""
    if small:
        yield from (("logits", 16, 640, 0, name) for name in NAMES["logits"] if name != "torch.compile")
        yield from (("linear", 16, 640, 32, name) for name in NAMES["linear"] if name != "torch.compile")
        return
    for n, vocab in LOGITS:
        yield from (("logits", n, vocab, 0, name) for name in NAMES["logits"])
    for n, vocab, width in LINEAR:
        yield from (("linear", n, vocab, width, name) for name in NAMES["linear"])


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


def one(device: str, case: tuple[str, int, int, int, str], reached: dict[str, float]) -> dict[str, Any]:
    """A case's times, with its share of what the machine reaches; an implementation that fails is a row too."""
    flow, n, vocab, width, name = case
    plan = argparse.Namespace(device=device, dtype="bf16", flow=flow, n=n, vocab=vocab, width=width, only=name)
    plan.threads, plan.repeat, plan.seconds = torch.get_num_threads(), 5, 0.3
    torch.compiler.reset()  # each case is compiled for its own sizes, as in a process of its own
    try:
        row = measure(plan)
    except Exception as e:  # a peer that fails must not end the others
        return {"flow": flow, "n": n, "vocab": vocab, "implementation": name, "error": f"{type(e).__name__}: {e}"[:300]}
    if device == "cpu":  # the small cases stay in its caches, of which a copy's bandwidth says nothing
        return row
    seconds = max(float(str(row["ms"])) / 1e3, 1e-9)
    if flow == "logits":  # each logit read once and written once is the least that any implementation moves
        row["share_of_copy"] = 2 * 2 * n * vocab / seconds / 1e9 / reached["copy_gb_s"]
    else:
        row["share_of_product"] = 6 * n * vocab * width / seconds / 1e12 / reached["bf16_tflops"]
    return row


def main(argv: Sequence[str]) -> None:
    """Cases until the seconds are over."""
    begun, device = time.monotonic(), "cuda" if torch.cuda.is_available() else "cpu"
    reached = ceilings(device)
    print(json.dumps({"ceilings": reached}), flush=True)
    for case in cases("small" in argv):
        if time.monotonic() - begun > float(argv[0]):
            print(json.dumps({"not_begun": list(case), "error": "the time was over"}), flush=True)
            return
        print(json.dumps(one(device, case, reached)), flush=True)
        if device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(run(main))
