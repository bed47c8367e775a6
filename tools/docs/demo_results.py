#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Collect what one run of the demo gave into docs/results/demo_por.json.

    tools/docs/demo_results.py --eval work/eval/demo_por --run work/runs/demo_por --data work/data/demo_por \\
        --output docs/results/demo_por.json [--seconds 1016]
    tools/docs/readme_table.py     # the pages' tables from it

Everything is read from the three folders; only the time of the whole command, if it was taken, is given by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json_object, read_jsonl, write_json

FORMAT = "sdrrl-demo/1"
KEPT = ("id", "title", "unit", "better", "base", "trained", "difference", "interval", "p_value", "verdict")
"""What is kept of a measure; its details are in the report."""
KINDS = ("questions", "translation")
"""What held-out loss is taken on."""


def measures(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Every measure of results.json, section by section."""
    sections = (results["loss"], results["off_target"], results["translation"], results["alignment"]["measures"])
    return [{key: m[key] for key in KEPT} for section in sections for m in section]


def judged(results: dict[str, Any]) -> dict[str, int]:
    """How many held-out texts the measures are made of; the configuration may take fewer than there are."""
    loss = {kind: max(m["samples"] for m in results["loss"] if m["kind"] == kind) for kind in KINDS}
    return {
        "questions": loss["questions"],
        "pairs": loss["translation"],
        "translated": max(m["samples"] for m in results["translation"]),
    }


def training(folder: Path) -> dict[str, Any]:
    """Steps, tokens and seconds of a finished run; a step that was taken again after a resume counts once."""
    ended = read_json_object(folder / "finished.json")
    steps = {row["step"]: row for _, row in read_jsonl(folder / "metrics.jsonl")}
    if len(steps) != ended["step"]:
        raise SdrrlError(f"{folder}/metrics.jsonl holds {len(steps)} of {ended['step']} steps; train the run again")
    return {
        "steps": len(steps),
        "tokens": sum(row["tokens"] for row in steps.values()),
        "seconds": round(sum(row["seconds"] for row in steps.values()), 1),
        "clipped_share": ended["clipped_share"],
        "provenance": read_json_object(folder / "provenance.json"),
    }


def collected(evaluation: Path, trained: Path, data: Path, seconds: int | None) -> dict[str, Any]:
    """The document; SdrrlError where the three folders do not belong together."""
    results = read_json_object(evaluation / "results.json")
    stats = read_json_object(data / "stats.json")
    files = {Path(name).name: sha256 for name, sha256 in stats["files"].items() if name.startswith("heldout/")}
    if files != results["held_out"]["sha256"]:
        raise SdrrlError(f"{evaluation}/results.json judged other held-out texts than {data} holds; evaluate again")
    if Path(results["configuration"]["run_dir"]).name != trained.name:
        raise SdrrlError(
            f"{evaluation}/results.json compares the run {results['configuration']['run_dir']}, not {trained}"
        )
    when = datetime.fromtimestamp((evaluation / "results.json").stat().st_mtime, UTC)
    return {
        "format": FORMAT,
        "date": f"{when:%Y-%m-%d}",
        "title": results["title"],
        "make_demo_seconds": seconds,
        "judged": judged(results),
        "data": {
            "seconds": round(sum(stage["seconds"] for stage in stats["stages"]), 1),
            "subsets": {name: subset["samples"] for name, subset in stats["subsets"].items()},
        },
        "training": training(trained),
        "evaluation": {
            "seconds": round(sum(sum(tasks.values()) for tasks in results["seconds"].values()), 1),
            "provenance": results["provenance"],
        },
        "measures": measures(results),
    }


def main(argv: Sequence[str]) -> int:
    """Parse, collect, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--eval", type=Path, required=True, help="output_dir of the evaluation")
    parser.add_argument("--run", type=Path, required=True, help="run_dir of the training run that it judges")
    parser.add_argument("--data", type=Path, required=True, help="output_dir of the preprocessing run")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    parser.add_argument("--seconds", type=int, help="time of the whole `make demo`, if it was taken")
    arguments = parser.parse_args(argv)
    write_json(arguments.output, collected(arguments.eval, arguments.run, arguments.data, arguments.seconds))
    print(f"results: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
