#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Sum up what tools/bench/loss_kernels.py measured: a JSON with its origin, and the Markdown table of docs/kernels.md.

    python tools/bench/kernel_table.py work/bench/kernels_cpu.jsonl --json docs/results/kernels_cpu.json --command '...'

Goals. Flow ``linear`` against torch's own F.linear_cross_entropy: half its time, half its peak memory, a tenth of the
error of its weight gradient. Flow ``logits`` against the fastest peer of the shape: its time, half its peak memory.
A miss is in bold and listed below the table.
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

Shape = tuple[str, str, int, int, float]
SMALLEST_PEAK = 1.0
"""MiB. A peak below this is what the allocator's pages blur; ratios are taken to it."""
NATIVE = "torch native"
ROUNDING = {"fp32": 1e-6, "bf16": 3e-3, "fp16": 4e-4}
"""Relative error that a gradient rounded once, from logits and a logits' gradient rounded once each, has anyway."""
GOALS = {
    "linear": {"time_ratio": 0.5, "memory_ratio": 0.5, "error_ratio": 0.1},
    "logits": {"time_ratio": 1.0, "memory_ratio": 0.5},
}
HEAD = (
    *("flow", "dtype", "V", "N", "live", "ours ms", "peak MiB", "dW error", "held against", "ms", "peak MiB"),
    *("dW error", "time", "memory", "error", "fastest peer", "ms"),
)


def shapes(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row a shape: ours, the peer that it is held against, their ratios, and the fastest peer."""
    cases: dict[Shape, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        shape = (row["flow"], row["dtype"], row["vocab"], row["n"], row["live"])
        cases[shape][row["implementation"]] = row
    for (flow, dtype, vocab, n, live), by_name in sorted(cases.items()):
        measured = {k: v for k, v in by_name.items() if "ms" in v}
        peers = {k: v for k, v in measured.items() if not k.startswith("ours")}
        if "ours" not in measured or not peers or (flow == "linear" and NATIVE not in peers):
            continue
        fastest = min(peers, key=lambda k: peers[k]["ms"])
        name = NATIVE if flow == "linear" else fastest
        ours, peer = measured["ours"], peers[name]
        found = {
            **{"flow": flow, "dtype": dtype, "vocab": vocab, "n": n, "live": live},
            "ms": {k: v["ms"] for k, v in measured.items()},
            "peak_mib": {k: v["peak_mib"] for k, v in measured.items()},
            "dw_error": {k: v["dw_error"] for k, v in measured.items() if "dw_error" in v},
            "failed": {k: v["error"] for k, v in by_name.items() if "error" in v},
            "held_against": name,
            "fastest_peer": fastest,
            "time_ratio": round(ours["ms"] / peer["ms"], 3),
            "memory_ratio": round(ours["peak_mib"] / max(peer["peak_mib"], SMALLEST_PEAK), 3),
        }
        if "dw_error" in ours and "dw_error" in peer:
            found["error_ratio"] = round(ours["dw_error"] / max(peer["dw_error"], 1e-12), 4)
        yield found


def misses(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One line for every goal that a shape does not reach."""
    for s in found:
        for key, goal in GOALS[s["flow"]].items():
            if not s.get(key, float("inf")) <= goal:
                shape = f"{s['flow']} {s['dtype']} V={s['vocab']} N={s['n']} live={s['live']:g}"
                yield f"{shape}: {key.replace('_', ' ')} {s.get(key, float('nan')):.2f}, goal {goal:g}{_reason(s, key)}"


def _reason(s: dict[str, Any], key: str) -> str:
    """What arithmetic alone says about a missed goal of exactness; empty where it says nothing."""
    error = s["dw_error"].get("ours", float("inf"))
    if key == "error_ratio" and error < ROUNDING[s["dtype"]]:
        return f" (ours is {error:.1e}: the result's one rounding to {s['dtype']})"
    return ""


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown; a missed goal is in bold."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for s in found:
        name, fastest, errors = s["held_against"], s["fastest_peer"], s["dw_error"]
        cells = [s["flow"], s["dtype"], s["vocab"], s["n"], f"{s['live']:g}"]
        for who in ("ours", name):
            cells += [name] if who != "ours" else []
            cells += [f"{s['ms'][who]:.0f}", f"{s['peak_mib'][who]:.0f}"]
            cells.append(f"{errors[who]:.1e}" if who in errors else "-")
        for key in ("time_ratio", "memory_ratio", "error_ratio"):
            goal, value = GOALS[s["flow"]].get(key), s.get(key)
            text = "-" if value is None else f"{value:.2f}"
            cells.append(f"**{text}**" if goal is not None and value is not None and value > goal else text)
        lines.append("| " + " | ".join(map(str, [*cells, fastest, f"{s['ms'][fastest]:.0f}"])) + " |")
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
    missed = list(misses(found))
    origin = {k: v for k, v in provenance().items() if k != "command"}
    threads = next((row["threads"] for row in rows if "threads" in row), None)
    content = {
        **{"command": args.command, "machine": f"{platform.machine()}, {threads} threads", "origin": origin},
        **{"goals": GOALS, "shapes": found, "misses": missed, "cases": rows},
    }
    write_json(args.json, content)
    print(table(found))
    print("\n".join(["", f"{len(found)} shapes, {len(missed)} goals missed.", *(f"- {line}" for line in missed)]))
    print(json.dumps({"shapes": len(found), "missed": len(missed)}), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
