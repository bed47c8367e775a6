#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Sum up what tools/bench/loss_kernels.py measured: a JSON with its origin, and the Markdown table of docs/kernels.md.

    python tools/bench/kernel_table.py work/bench/kernels_cpu.jsonl --json docs/results/kernels_cpu.json --command '...'

Ours is put against the fastest peer of each shape: time <= 1.0 of its time, peak memory <= 0.5 of its peak.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_jsonl, write_json
from sdrrl_nemo.common.provenance import provenance

Shape = tuple[str, str, int, int]
SMALLEST_PEAK = 1.0
"""MiB. A peak below this is what the allocator's pages blur; ratios are taken to it."""


def shapes(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row a shape: ours, the fastest peer, both ratios."""
    cases: dict[Shape, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        cases[row["flow"], row["dtype"], row["vocab"], row["n"]][row["implementation"]] = row
    for (flow, dtype, vocab, n), by_name in sorted(cases.items()):
        measured = {k: v for k, v in by_name.items() if "ms" in v}
        peers = {k: v for k, v in measured.items() if not k.startswith("ours")}
        if "ours" not in measured or not peers:
            continue
        ours, name = measured["ours"], min(peers, key=lambda k: peers[k]["ms"])
        peer = peers[name]
        yield {
            "flow": flow,
            "dtype": dtype,
            "vocab": vocab,
            "n": n,
            "ms": {k: v["ms"] for k, v in measured.items()},
            "peak_mib": {k: v["peak_mib"] for k, v in measured.items()},
            "fastest_peer": name,
            "time_ratio": round(ours["ms"] / peer["ms"], 3),
            "memory_ratio": round(ours["peak_mib"] / max(peer["peak_mib"], SMALLEST_PEAK), 3),
        }


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown; a missed goal is in bold."""
    head = "| flow | dtype | V | N | ours ms | peak MiB | fastest peer | ms | peak MiB | time | memory |"
    lines = [head, "|" + "---|" * head.count("|", 1)]
    for s in found:
        name = s["fastest_peer"]
        time, memory = f"{s['time_ratio']:.2f}", f"{s['memory_ratio']:.2f}"
        time, memory = (
            f"**{t}**" if s[k] > g else t for t, k, g in ((time, "time_ratio", 1.0), (memory, "memory_ratio", 0.5))
        )
        cells = [s["flow"], s["dtype"], s["vocab"], s["n"], f"{s['ms']['ours']:.0f}", f"{s['peak_mib']['ours']:.0f}"]
        cells += [name, f"{s['ms'][name]:.0f}", f"{s['peak_mib'][name]:.0f}", time, memory]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("measured", type=Path, help="JSON lines that tools/bench/loss_kernels.py wrote")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--command", required=True, help="what was run, as anyone can run it again")
    args = parser.parse_args(argv)
    if not args.measured.is_file():
        raise SdrrlError(f"{args.measured}: no such file; run tools/bench/loss_kernels.py with --output first")
    rows = [row for _, row in read_jsonl(args.measured)]
    found = list(shapes(rows))
    origin = {k: v for k, v in provenance().items() if k != "command"}
    machine = f"{platform.machine()}, {rows[0].get('threads')} threads, {rows[0].get('device')}"
    goals = {
        "time_ratio <= 1.0": sum(s["time_ratio"] <= 1.0 for s in found),
        "memory_ratio <= 0.5": sum(s["memory_ratio"] <= 0.5 for s in found),
        "shapes": len(found),
    }
    write_json(
        args.json,
        {"command": args.command, "machine": machine, "origin": origin, "goals": goals, "shapes": found, "cases": rows},
    )
    print(table(found))
    print(json.dumps(goals), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
