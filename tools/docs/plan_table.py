#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Write what the planner predicts for the shipped GPU configurations, as they were without Megatron's options and as
they are, and what it prints for one of them, into docs/planning.md; the predictions into docs/results too.

tools/docs/plan_table.py            # writes the page between its markers, and the file
tools/docs/plan_table.py --check    # changes nothing; exit 2 where page or file says something else
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json_object, write_json, write_parts
from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.cost.gpus import gpu
from sdrrl_nemo.plan import report
from sdrrl_nemo.plan.layout import Layout
from sdrrl_nemo.plan.models import hf_config
from sdrrl_nemo.plan.search import Planner
from sdrrl_nemo.plan.workload import workload
from sdrrl_nemo.train.config import RunConfig

ROOT = Path(__file__).parents[2]
PAGE, RESULTS = ROOT / "docs/planning.md", ROOT / "docs/results/plan_configs.json"
TOOL = "tools/docs/plan_table.py"
EXAMPLE, WIDTH, LAYOUTS = "llama2_7b_a800x8", 120, 8
TOKENS, SAMPLE_LENGTH, SEQ_LENGTH = 30_000_000, 300, 2048
"""An example's epoch: the same for every configuration."""
WITHOUT = ("megatron.overlap_grad_reduce=false", "megatron.overlap_param_gather=false")
CARD = "a800-80g"
CONFIGURATIONS: dict[str, tuple[int, tuple[str, ...]]] = {
    "llama2_7b_a800x8": (8, ()),
    "llama2_13b_a800x8": (8, ("trainer.tp=4", "trainer.pp=1", "trainer.vpp=1", "trainer.micro_batch_size=4")),
    "seallm_7b_a800x8": (8, ()),
    "llama2_7b_a800x64": (64, ("trainer.tp=2", "trainer.sequence_parallel=true", "trainer.micro_batch_size=4")),
}
"""Configuration -> GPUs, and the layout that it had before its options, as overrides."""


def planner_of(name: str, overrides: Sequence[str]) -> tuple[Planner, str]:
    """The planner of one configuration, and where its model's sizes come from."""
    config = load_config(RunConfig, ROOT / f"configs/{name}.yaml", list(overrides))
    data = workload(config, TOKENS, 0, SAMPLE_LENGTH, SEQ_LENGTH)
    hf, source = hf_config(config.model.hf_path, "")
    return Planner(config, ModelShape.of(hf), gpu(CARD), data), source


def predicted(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Layout, GB a GPU and tokens a second of one configuration."""
    planner, _ = planner_of(name, overrides)
    plan = planner.predict(planner.layout(CONFIGURATIONS[name][0]))
    options = planner.config.megatron
    overlap = options.overlap_grad_reduce and options.overlap_param_gather
    return {
        "layout": asdict(plan.layout),
        "overlap": overlap,
        "gb_a_gpu": round(plan.memory.total / report.GB, 1),
        "tokens_per_second": round(plan.tokens_per_second),
    }


def predictions() -> dict[str, Any]:
    """The whole table as the results' file holds it."""
    rows = {
        name: {
            "gpu": CARD,
            "gpus": gpus,
            "before": predicted(name, [*WITHOUT, *former]),
            "now": predicted(name, []),
        }
        for name, (gpus, former) in CONFIGURATIONS.items()
    }
    return {
        "format": "sdrrl-plan-configs/1",
        "command": TOOL,
        "data": {"tokens": TOKENS, "sample_length": SAMPLE_LENGTH, "seq_length": SEQ_LENGTH},
        "configurations": rows,
    }


def _layout(side: dict[str, Any]) -> str:
    """``TP 2 SP, PP 2 (VPP 10), DP 2, 3, overlap``: what is split, then the rows of a micro-batch."""
    found = Layout(**side["layout"])
    parts = [f"TP {found.tp}{' SP' if found.sequence_parallel else ''}"] if found.tp > 1 else []
    parts += [f"PP {found.pp}{f' (VPP {found.vpp})' if found.vpp > 1 else ''}"] if found.pp > 1 else []
    parts += [f"CP {found.cp}"] if found.cp > 1 else []
    return ", ".join([*parts, f"DP {found.dp}", str(found.micro_batch_size), *(["overlap"] if side["overlap"] else [])])


def table(document: dict[str, Any]) -> str:
    """Markdown of the predictions."""
    lines = [
        "| configuration | before: layout, micro-batch | GB | tokens/s | now: layout, micro-batch | GB | tokens/s | |",
        "|---|---|--:|--:|---|--:|--:|--:|",
    ]
    for name, row in document["configurations"].items():
        cells = [name]
        for side in (row["before"], row["now"]):
            cells += [_layout(side), f"{side['gb_a_gpu']:.1f}", f"{side['tokens_per_second']:,}"]
        gain = row["now"]["tokens_per_second"] / row["before"]["tokens_per_second"] - 1
        lines.append(f"| {' | '.join([*cells, f'{100 * gain:+.0f}%'])} |")
    return "\n".join(lines)


def example() -> str:
    """What ``sdrrl plan`` prints for one configuration, long lines folded below their second column."""
    planner, source = planner_of(EXAMPLE, ())
    lines = []
    for line in report.lines(planner, planner.result(CONFIGURATIONS[EXAMPLE][0]), source, LAYOUTS):
        indent = re.match(r"\S*\s*", line)
        blanks = " " * (indent.end() if indent else 0)
        short = len(line) <= WIDTH
        lines += [line] if short else textwrap.wrap(line, WIDTH, subsequent_indent=blanks, drop_whitespace=False)
    return "\n".join(["```text", *(line.rstrip() for line in lines), "```"])


def main(argv: Sequence[str]) -> None:
    """Predict, then write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 2 where something else is written")
    args = parser.parse_args(argv)
    document = predictions()
    if args.check and read_json_object(RESULTS) != document:
        raise SdrrlError(f"{RESULTS}: other predictions than today's; run {TOOL}")
    write_parts(PAGE, {"configurations": table(document), "example": example()}, TOOL, args.check)
    if not args.check:
        write_json(RESULTS, document)


if __name__ == "__main__":
    sys.exit(run(main))
