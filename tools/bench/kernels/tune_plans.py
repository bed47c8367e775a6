#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../../python" "$0" "$@"'
"""Find the fastest tile and number of warps of the loss kernels on this GPU, and keep them for later runs.

    python tools/bench/kernels/tune_plans.py --vocab 49152 [--tp 2] [--dtype bf16] [--tokens 4096]

Every candidate is timed on logits of the given size; one that is at least 3% faster than the default is written into
the file of plans (kernels/sdrrl_kernels/plans.py says where it lies), from which training takes it. Half a minute.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "kernels"))

from sdrrl_kernels import plans
from sdrrl_kernels.options import LossOptions
from sdrrl_kernels.plans import Plan
from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from tools.bench.kernels.loss_cases import DTYPES, Case

REPEAT = 10


def milliseconds(kind: str, case: Case, plan: Plan) -> float:
    """Median of the kernels of ``kind`` on the case's logits; infinite where the plan cannot be launched."""
    from sdrrl_kernels import cross_entropy_triton as launch

    x, y, w = case.logits, case.labels, case.weights
    n, columns = x.shape
    o = LossOptions(ignore_index=-100, vocab_start=0, valid=columns, vocab_size=columns)
    upstream = torch.ones((), device=x.device)
    row_max, row_sum = torch.zeros(n, device=x.device), torch.ones(n, device=x.device)
    times = []
    with plans.forced(kind, plan):
        for _ in range(REPEAT + 2):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")
            try:
                begin.record()
                if kind == "resident":
                    launch.one_pass(x, y, w, 1.0, o)
                else:
                    launch.statistics(x, y, w, o)
                    launch.gradient(x, x, y, w, upstream, row_max, row_sum, o)
                end.record()
                torch.cuda.synchronize()
            except (RuntimeError, launch.triton.OutOfResources):  # more than the card has
                return float("inf")
            times.append(begin.elapsed_time(end))
    return statistics.median(times[2:])


def main(argv: Sequence[str]) -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--vocab", type=int, required=True, help="padded vocabulary of the model")
    p.add_argument("--tp", type=int, default=1, help="tensor-parallel size: a rank's rows are vocab / tp wide")
    p.add_argument("--dtype", choices=sorted(DTYPES), default="bf16")
    p.add_argument("--tokens", type=int, default=4096)
    args = p.parse_args(argv)
    if args.vocab < 1 or args.tp < 1 or args.vocab % args.tp:
        raise SdrrlError(f"--vocab {args.vocab} --tp {args.tp}: the padded vocabulary must be a multiple of --tp")
    path = plans.file()
    if path is None:
        raise SdrrlError(f"{plans.FOLDER}=off: there is no place to keep plans; unset it or name a folder")
    if not torch.cuda.is_available():
        raise SdrrlError("torch sees no CUDA device; plans are tuned on the GPU that will train")
    from sdrrl_kernels import cross_entropy_triton as launch

    columns, size = args.vocab // args.tp, DTYPES[args.dtype].itemsize
    case = Case("cuda", args.dtype, args.tokens, columns, 0, "logits")
    found: dict[str, Plan] = {}
    for kind in plans.KINDS:
        tile = launch.stream_tile(columns, size) if kind == "stream" else launch.resident_tile(columns, size, False)
        if tile is None:  # such rows do not fit registers
            continue
        default = Plan(tile.block, tile.warps)
        plan, ms = plans.tune(kind, columns, size, default, functools.partial(milliseconds, kind, case))
        found[plans.entry(kind, plans.bucket(columns), size)] = plan
        origin = "default" if plan == default else f"default {default.block}, {default.warps} warps"
        print(plans.line(kind, plans.bucket(columns), size, plan, f"{ms:.3f} ms; {origin}"))
    plans.write(path, plans.device_key(), found)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
