#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Write what the finished studies found into docs/study.md, from their files under docs/results.

tools/docs/study_table.py            # writes between the markers of each study
tools/docs/study_table.py --check    # changes nothing; exit 2 where the page differs from the files
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.fileio import read_json_object, write_parts
from sdrrl_nemo.report.study import beyond_chance, column_title, figure, full_title, methods, signed
from sdrrl_nemo.study.orderings import HOLDS, REVERSED, TIE, counts

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/study.md"
TOOL = "tools/docs/study_table.py"
STUDIES = GOOD, NOISY = "study_smollm2_por_400k", "study_smollm2_spa"
"""Names under docs/results, each of which has its pair of markers on the page: a good and a noisy translator."""
COLUMNS = ("loss.questions.{t}-{t}", "off_target.answers.{t}", "alignment.precision_at_1")
"""Measures beside Table 6's averages; {t}: target language."""
MARKS = {"better": " ▲", "worse": " ▼"}
ABLATION = "no_parallel"
"""The one whose cost is compared between both studies."""
COST = f"cost_of_{ABLATION}"
"""Name of that part of the page."""
ORDER = {HOLDS: "as in the paper", REVERSED: "the other way round"}


def columns(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The averages, and what of ``COLUMNS`` was measured."""
    target = document["languages"]["target"]["code"]
    wanted = [name.format(t=target) for name in COLUMNS]
    return [*document["averages"], *(m for name in wanted for m in document["measures"] if m["id"] == name)]


def cell(measure: dict[str, Any], method: str) -> str:
    """A method's mean, its spread over seeds, and whether it is clearly another than the full method's."""
    found = measure["values"].get(method, {"mean": None, "sd": None})
    spread = "" if found["sd"] is None else f" ± {figure(found['sd'], measure['unit'])}"
    verdict = measure["comparisons"].get(method, {}).get("verdict", "")
    return figure(found["mean"], measure["unit"]) + spread + MARKS.get(verdict, "")


def means(document: dict[str, Any]) -> list[str]:
    """One row a method; the last column counts over all measures and averages."""
    shown = columns(document)
    compared = [m["comparisons"] for m in (*document["measures"], *document["averages"])]
    heads = [column_title(m, document["languages"]["target"]["name"]) for m in shown]
    out = ["| " + " | ".join(["", *heads, "clearly better / worse, of"]) + " |", "|---|" + "---:|" * (len(shown) + 1)]
    for row in methods(document):
        verdicts = [c[row["name"]]["verdict"] for c in compared if row["name"] in c]
        tally = f"{verdicts.count('better')} / {verdicts.count('worse')}, {len(verdicts)}"
        cells = [cell(m, row["name"]) for m in shown]
        out.append("| " + " | ".join([row["title"], *cells, tally if verdicts else ""]) + " |")
    return out


def orderings(document: dict[str, Any]) -> list[str]:
    """How many of the paper's orderings hold, method by method, and those that are beyond chance one by one; nothing
    where the paper has no counterpart."""
    rows, titles = document["orderings"]["rows"], {m["name"]: m["title"] for m in methods(document)}
    if not rows:
        return []
    full = full_title(document)
    out = [f"| {full} against | pairs | as in the paper | the other way round | tie |", "|---|---:|---:|---:|---:|"]
    for name, title in titles.items():
        c = counts([r for r in rows if r["method"] == name])
        if c["pairs"]:
            held, other = (f"{c[x]} ({c[f'{x}_beyond_chance']})" for x in (HOLDS, REVERSED))
            out.append(f"| {title} | {c['pairs']} | {held} | {other} | {c[TIE]} |")
    clear = [r for r in rows if r["beyond_chance"]]
    if not clear:
        return [*out, "", "In brackets: beyond chance."]
    out += ["", f"In brackets: beyond chance. These are, as {full} minus the other method:", ""]
    out += ["| measure | against | paper | here (95 % interval) | |", "|---|---|---:|---:|---|"]
    for r in clear:
        low, high = (signed(limit, "%") for limit in r["interval"])
        here = f"{signed(r['here'], '%')} ({low} to {high})"
        out.append(
            f"| {r['title']} | {titles[r['method']]} | {signed(r['paper'], '%')} | {here} | {ORDER[r['result']]} |"
        )
    return out


def cost(measure: dict[str, Any]) -> tuple[float, float]:
    """By how much the ablation is worse than the full method, and half the width of its 95 % interval."""
    found = measure["comparisons"][ABLATION]
    low, high = found["interval"]
    return (1 if measure["better"] == "lower" else -1) * found["difference"], (high - low) / 2


def held_out(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The measures on held-out data that the ablation has, by their names without the target language."""
    code = document["languages"]["target"]["code"]
    found = [m for m in document["measures"] if m["group"] == "Held-out data" and ABLATION in m["comparisons"]]
    return {m["id"].replace(code, "target"): m for m in found}


def costs(good: dict[str, Any], noisy: dict[str, Any]) -> str:
    """What leaving the ablation's subsets out costs in both studies, and the difference of the two costs.

    Its interval is a normal one: variances add up, and with them the squares of half widths, as if the studies shared
    no test item.
    """
    name, other = (d["languages"]["target"]["name"] for d in (good, noisy))
    one, two = held_out(good), held_out(noisy)
    out = [
        f"| measure | cost, {name} | cost, {other} | {other} − {name} (95 % interval) |",
        "|---|---:|---:|---:|",
    ]
    shared, more, less = [k for k in one if k in two], 0, 0
    for key in shared:
        (first, half_1), (second, half_2) = cost(one[key]), cost(two[key])
        difference, half = second - first, math.hypot(half_1, half_2)
        more, less = more + (difference > half), less + (difference < -half)
        unit = one[key]["unit"]
        title = one[key]["title"].replace(name, "target language")
        shown = f"{signed(difference, unit)} ({signed(difference - half, unit)} to {signed(difference + half, unit)})"
        mark = "**" if abs(difference) > half else ""
        out.append(f"| {title} ({unit}) | {signed(first, unit)} | {signed(second, unit)} | {mark}{shown}{mark} |")
    out += [
        "",
        f"Of these {len(shared)} measures leaving them out costs more in {other} on {more} and more in {name} on "
        f"{less}; on {len(shared) - more - less} the interval holds 0. The intervals are not corrected for their "
        "number.",
    ]
    return "\n".join(out)


def section(document: dict[str, Any], name: str) -> str:
    """What stands between the markers of a study."""
    runs, made, decided = document["runs"], document["made"], beyond_chance(document)
    steps, tokens = runs[0]["steps"], [r["tokens"] for r in runs if r["state"] == "measure"]
    items = [m["items"] for m in document["measures"]]
    days = made["first"] if made["first"] == made["last"] else f"{made['first']} to {made['last']}"
    missing = f" **Not measured yet: {', '.join(document['missing'])}.**" if document["missing"] else ""
    lines = [
        f"{document['title']}: {days}; {document['provenance']['machine']}; {len(tokens)} of {len(runs)} runs, {steps} "
        f"steps, {min(tokens):,} to {max(tokens):,} tokens each; {min(items)} to {max(items)} items a measure. "
        f"[Page](results/{name}.html), [figures](results/{name}.json).{missing}",
        "",
        f"**{decided['title']}**, after Holm's correction: {decided['sentence']} ▲ ▼: clearly better or worse than "
        f"{full_title(document)}.",
        "",
        *means(document),
        "",
        *orderings(document),
    ]
    return "\n".join(lines).rstrip()


def main(argv: Sequence[str]) -> int:
    """Parse, write or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the page differs from a file")
    arguments = parser.parse_args(argv)
    documents = {name: read_json_object(ROOT / f"docs/results/{name}.json") for name in STUDIES}
    parts = {name: section(document, name) for name, document in documents.items()}
    parts[COST] = costs(documents[GOOD], documents[NOISY])
    if write_parts(PAGE, parts, TOOL, arguments.check):
        print("written: docs/study.md")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
