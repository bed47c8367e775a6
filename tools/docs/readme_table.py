#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Write what the demo made better and what it made worse into README.md and docs/using.md, from docs/results.

tools/docs/readme_table.py            # writes between the markers of both pages
tools/docs/readme_table.py --check    # changes nothing; exit 2 where a page differs from the file
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.fileio import read_json_object, write_parts

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results/demo_por.json"
TOOL = "tools/docs/readme_table.py"
PAGES = {"README.md": False, "docs/using.md": True}
"""Page -> whether it shows every measure; else those that moved beyond chance, and all that got worse."""
MORE = (
    "So few steps of a small model make a demonstration, not a good Portuguese model; "
    "[docs/using.md](docs/using.md#results-of-the-demo) has every measure."
)
GROUPS = (
    "Better, beyond chance",
    "Worse, beyond chance",
    "Worse, within what chance explains",
    "Better or the same, within what chance explains",
)
SHORT = GROUPS[:3]


def group(measure: dict[str, Any]) -> str | None:
    """The group of a measure; None where one of the models has no figure, as where it wrote no text long enough."""
    if measure["difference"] is None:
        return None
    worse = measure["difference"] != 0 and (measure["difference"] > 0) == (measure["better"] == "lower")
    if measure["verdict"] in ("better", "worse"):
        return GROUPS[1] if worse else GROUPS[0]
    return GROUPS[2] if worse else GROUPS[3]


def figure(value: float, unit: str, signed: bool = False) -> str:
    """A value in its unit: rates in per cent, BLEU and chrF with one decimal, the rest with three."""
    digits = 1 if unit in ("rate", "BLEU", "chrF") else 3
    shown = round(100 * value if unit == "rate" else value, digits) + 0.0  # never -0.0
    suffix = "" if unit != "rate" else " points" if signed else "%"
    return f"{shown:{'+' if signed else ''}.{digits}f}{suffix}"


def row(measure: dict[str, Any]) -> str:
    """One line of the table: both models, the difference and how sure it is."""
    unit, sure = measure["unit"], ""
    if measure["interval"] is not None:
        low, high = (figure(x, unit, signed=True).removesuffix(" points") for x in measure["interval"])
        sure = f" ({low} to {high})"
    elif measure["p_value"] is not None:
        sure = f" (p = {measure['p_value']:.3f})"
    title = measure["title"] + (", nats a token" if unit == "nats/token" else "")
    values = figure(measure["base"], unit), figure(measure["trained"], unit)
    return f"| {title} | {values[0]} | {values[1]} | {figure(measure['difference'], unit, signed=True)}{sure} |"


def section(results: dict[str, Any], whole: bool, link: str) -> str:
    """What stands between a page's markers."""
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in GROUPS}
    for measure in results["measures"]:
        if (name := group(measure)) is not None:
            groups[name].append(measure)
    better, worse, down, rest = (len(groups[name]) for name in GROUPS)
    training, judged = results["training"], results["judged"]
    lines = [
        f"One run of `make demo` ({results['date']}; {training['provenance']['machine']}; {training['steps']} steps, "
        f"{training['tokens']:,} tokens;",
        f"[all figures]({link})), judged on {judged['questions']} questions and {judged['pairs']} pairs of sentences "
        f"that training never saw, {judged['translated']} of them translated:",
        f"{better} measures got better beyond chance and {worse} worse; {down} got worse and {rest} not worse within "
        "what chance explains.",
        "",
        "| | base | trained | change (95% interval or p) |",
        "|---|---|---|---|",
    ]
    for name in GROUPS if whole else SHORT:
        if groups[name] or name in GROUPS[:2]:
            lines.append(f"| **{name}**{'' if groups[name] else ': none'} | | | |")
            lines += [row(measure) for measure in groups[name]]
    if not whole:
        lines += ["", MORE]
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Parse, write or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a page differs from the file")
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout whose pages are meant (default: this one)")
    arguments = parser.parse_args(argv)
    results = read_json_object(arguments.root / RESULTS.relative_to(ROOT))
    for name, whole in PAGES.items():
        link = "results/demo_por.json" if name.startswith("docs/") else "docs/results/demo_por.json"
        if write_parts(arguments.root / name, {"demo": section(results, whole, link)}, TOOL, arguments.check):
            print(f"written: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
