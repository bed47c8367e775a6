#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../../python" "$0" "$@"'
"""How many rows a second one process makes into micro-batches, beside what a GPU takes of them.

    python tools/bench/training/loader_speed.py --json docs/results/loader_speed.json

The set is made here: packs of samples whose lengths are drawn at random, of which two thirds are answer. What a GPU
takes is the planner's prediction (docs/planning.md) for one GPU with these rows; no GPU is needed. One core makes the
rows, and each process of a run makes those of its own GPU; context-parallel ranks all make the same whole rows.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.cost.flops import ModelShape

MODELS = {
    "SmolLM2-135M": ModelShape(30, 576, 9, 3, 64, 1536, 49152, tied=True),
    "Llama-2-7B": ModelShape(32, 4096, 32, 32, 128, 11008, 32000),
}
ROWS, PACKS = 1500, 500


def main(argv: Sequence[str]) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--row-tokens", type=int, default=2048)
    parser.add_argument("--gpu", default="h100-80g")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        made = [rows_a_second(Path(folder), args.row_tokens, size, cp) for size in (1, 8) for cp in (1, 2)]
    for case in made:
        for name, shape in MODELS.items():
            tokens = gpu_takes(shape, args.gpu, args.row_tokens, case["micro_batch_size"])
            made_here = case["rows_a_second"] * args.row_tokens / case["cp"]
            case[name] = {"taken_tokens_a_second": round(tokens), "times_what_is_taken": round(made_here / tokens, 1)}
        print(case, file=sys.stderr, flush=True)
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one of them used",
        "row_tokens": args.row_tokens,
        "made": made,
        "gpu": args.gpu,
    }
    write_json(args.json, {**provenance(), **facts})


def gpu_takes(shape: ModelShape, name: str, row_tokens: int, micro_batch_size: int) -> float:
    """Tokens a second that one GPU trains on, as the planner predicts: bf16, fused layers, samples of 180 tokens."""
    from sdrrl_nemo.cost.gpus import gpu
    from sdrrl_nemo.plan.layout import Build, Layout
    from sdrrl_nemo.plan.speed import Work, step_seconds

    layout = Layout(micro_batch_size=micro_batch_size, accumulation=8)
    step = step_seconds(shape, layout, Build(live_share=0.6), Work(row_tokens, 90.0), gpu(name))
    return layout.global_batch_size * row_tokens / step.total


def rows_a_second(folder: Path, row_tokens: int, micro_batch_size: int, cp: int) -> dict[str, Any]:
    """Rows that one process makes a second of its CPU time."""
    from sdrrl_nemo.data.packing.packed import PackedDataset
    from sdrrl_nemo.train.batches import MicroBatches, MicroBatchStream, Schedule

    if not (folder / "train.manifest.json").is_file():
        write_set(folder, row_tokens)
    data = PackedDataset(folder)
    schedule = Schedule(len(data), 64, seed=0)
    batches = MicroBatches(
        data,
        packed=True,
        micro_batch_size=micro_batch_size,
        reduction="mean",
        schedule=schedule,
        context_parallel_size=cp,
    )
    stream = iter(MicroBatchStream(batches, 0, 0, 1))
    for _ in range(64):
        next(stream)
    count, began = ROWS // micro_batch_size, time.process_time()
    for _ in range(count):
        next(stream)
    rows = count * micro_batch_size / (time.process_time() - began)
    return {"micro_batch_size": micro_batch_size, "cp": cp, "rows_a_second": round(rows)}


def write_set(folder: Path, row_tokens: int) -> None:
    """PACKS packs of samples of 60 to 300 tokens."""
    from sdrrl_nemo.data.packing.packed import PackedWriter, TokenizedSample
    from sdrrl_nemo.data.rows import SUBSETS

    rng, key = np.random.default_rng(0), 0
    writer = PackedWriter(folder, "train", vocab_size=32000, seq_length=row_tokens)
    for _ in range(PACKS):
        pack: list[TokenizedSample] = []
        while (room := row_tokens - sum(len(s.tokens) for s in pack)) >= 60:
            n, key = min(int(rng.integers(60, 300)), room), key + 1
            mask = (np.arange(n) >= n // 3).astype(np.uint8)
            tokens = rng.integers(1, 32000, n).astype(np.int32)
            pack.append(TokenizedSample(f"{key:016x}", SUBSETS[key % 6], tokens, mask))
        writer.add_pack(pack)
    writer.finish({"tokenizer_sha256": "0" * 64})


if __name__ == "__main__":
    sys.exit(run(main))
