"""The tables of docs/quality_thresholds.md about hand-judged translations, from docs/results/quality_pairs.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write
from sdrrl_nemo.data.studies.judged_pairs import FAULTS
from sdrrl_nemo.data.studies.pairs_measurement import ESTIMATOR, EVERYTHING, FILTERS, IDENTIFIED

BEGIN = "<!-- judged pairs: written by sdrrl measure-quality --pairs ... --page; edits are lost -->"
END = "<!-- end of judged pairs -->"
SUMS = (FILTERS, IDENTIFIED, ESTIMATOR, EVERYTHING)

Found = Mapping[str, Any]


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose head is the first row."""
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:], ""]


def share(value: float | None) -> str:
    """A share as per cent, a dash where there is none."""
    return "-" if value is None else f"{value:.1%}"


def section(found: Found) -> list[str]:
    """All lines between the marks: what the set holds, and the tables."""
    runs = {name: found[name] for name in ("configured", "chosen") if found.get(name)}
    held = found["contents"]
    return [
        f"{held['right']} right and {held['wrong']} wrong translations, {len(held['kinds'])} kinds of text,"
        f" {len(held['faults'])} kinds of fault.",
        "",
        "**Each judge by itself, and together:** shares of right translations rejected and of wrong ones rejected"
        " (recall), and precision, the share of wrong ones among the rejected.",
        "",
        *judges_table(runs),
        "**By fault:** wrong translations accepted.",
        "",
        *faults_table(runs, held["faults"]),
        "**By pair of languages:** right ones rejected, wrong ones accepted.",
        "",
        *languages_table(runs, held),
        "**By kind of text:** right ones rejected by everything; kinds that lose none are left out.",
        "",
        *kinds_table(runs),
        f"**tau by pair:** AUC is the chance that a right translation scores above a wrong one;"
        f" the tau named keeps {found['keep']:.0%} of the right ones.",
        "",
        *taus_table(runs),
        "**One option at a time,** from the configured thresholds: counts of right ones / wrong ones rejected.",
        "",
        *sweeps_table(runs["configured"]["sweeps"]),
        *(line for name in found["identifiers"] for line in bounds_table(runs["configured"]["sweeps"], name)),
    ]


def judges_table(runs: Found) -> list[str]:
    """A row a judge, three columns a configuration; filters that reject nothing at all are named in the last row."""
    known = {name for run in runs.values() for name in run["judges"]}
    in_order = [f["name"] for run in runs.values() for own in run["thresholds"].values() for f in own["filters"]]
    names = [*dict.fromkeys([*in_order, *sorted(known - set(SUMS))]), *(name for name in SUMS if name in known)]
    head = ["judge", *(f"{run}: {what}" for run in runs for what in ("right rejected", "recall", "precision"))]
    rows, silent = [head], []
    for name in names:
        reports = [run["judges"].get(name) for run in runs.values()]
        if not any(r and r["all"]["right_rejected"] + r["all"]["wrong_rejected"] for r in reports):
            silent.append(name)
            continue
        label = f"**{name}**" if name in SUMS else name
        rows.append([label, *(cell for r in reports for cell in _three(r))])
    if silent:
        rows.append([", ".join(silent), *("0.0%", "0.0%", "-") * len(runs)])
    return markdown(rows)


def _three(report: Found | None) -> list[str]:
    if report is None:
        return ["-"] * 3
    total = report["all"]
    rejected = f"{share(total['false_rejects'])} ({total['right_rejected']})"
    return [rejected, f"{share(total['recall'])} ({total['wrong_rejected']})", share(total["precision"])]


def faults_table(runs: Found, counts: Mapping[str, int]) -> list[str]:
    """A row a fault: what it means, how many there are, and how many the judges together let pass."""
    columns = [(run, name) for run in runs for name in (IDENTIFIED, EVERYTHING)]
    rows = [["fault", "what is wrong", "cases", *(f"{run}: {name}" for run, name in columns)]]
    for fault, meaning in FAULTS.items():
        if fault in counts:
            cells = [_passed(runs[run]["judges"][name]["by_fault"][fault]) for run, name in columns]
            rows.append([fault, meaning, str(counts[fault]), *cells])
    totals = [share(runs[run]["judges"][name]["all"]["wrong_accepted"]) for run, name in columns]
    rows.append(["**all**", "", str(sum(counts.values())), *(f"**{total}**" for total in totals)])
    return markdown(rows)


def _passed(counted: Sequence[int]) -> str:
    return str(counted[0] - counted[1])


def languages_table(runs: Found, held: Found) -> list[str]:
    """A row a pair of languages, with two columns for what is asked with and without the estimator."""
    columns = [(run, name) for run in runs for name in (IDENTIFIED, EVERYTHING)]
    rows = [["pair", "right", "wrong", *(f"{run}: {name}" for run, name in columns)]]
    for pair, right in sorted(held["right_by_pair"].items()):
        parts = [runs[run]["judges"][name]["by_pair"][pair] for run, name in columns]
        cells = [f"{share(p['false_rejects'])}, {share(p['wrong_accepted'])}" for p in parts]
        rows.append([pair, str(right), str(held["wrong_by_pair"].get(pair, 0)), *cells])
    return markdown(rows)


def kinds_table(runs: Found) -> list[str]:
    """A row a kind of text of which right translations are lost."""
    by_run = {run: found["judges"][EVERYTHING]["by_kind"] for run, found in runs.items()}
    first = next(iter(by_run.values()))
    rows = [["kind", "right", *by_run]]
    for kind in sorted(first, key=lambda kind: (-first[kind][1], kind)):
        lost = [kinds[kind][1] for kinds in by_run.values()]
        if any(lost):
            rows.append([kind, str(first[kind][0]), *map(str, lost)])
    return markdown(rows)


def taus_table(runs: Found) -> list[str]:
    """A row a pair that the estimator serves: AUC, the tau that keeps, what each configured tau costs and brings."""
    first = next(iter(runs.values()))
    head = ["pair", "AUC", "tau that keeps"]
    rows = [[*head, *(f"{run}: tau, right rejected, wrong rejected" for run in runs)]]
    for pair, row in sorted(first["tau"].items(), key=lambda item: (item[0] == "all", item[0])):
        cells = []
        for run in runs.values():
            at = run["tau"][pair]["at_configured_tau"]
            tau = run["thresholds"][pair]["quality"][1] if pair in run["thresholds"] else "as above"
            cells.append(f"{tau}, {share(at['false_rejects'])}, {share(at['recall'])}")
        auc = "-" if row["auc"] is None else f"{row['auc']:.3f}"
        rows.append([pair, auc, f"{row['tau_for_keep']:.2f}", *cells])
    return markdown(rows)


def sweeps_table(sweeps: Sequence[Found]) -> list[str]:
    """A row an option: its values with what each rejects."""
    cells: dict[tuple[str, str], list[str]] = {}
    for row in sweeps:
        if not isinstance(row["value"], list):
            found = f"{row['value']:g}: {row['right_rejected']} / {row['wrong_rejected']}"
            cells.setdefault((row["judge"], row["option"]), []).append(found)
    rows = [[f"{judge}, {option}", ", ".join(found)] for (judge, option), found in cells.items()]
    return markdown([["judge, option", "value: right / wrong rejected"], *rows])


def bounds_table(sweeps: Sequence[Found], identifier: str) -> list[str]:
    """The bounds of one language identifier: a row a number of letters, a column a probability."""
    found = {tuple(row["value"]): row for row in sweeps if row["judge"] == identifier}
    probabilities = sorted({probability for _, probability in found})
    rows = [[f"{identifier}, min_letters", *(f"min_probability {p:g}" for p in probabilities)]]
    for letters in sorted({letters for letters, _ in found}):
        parts = [found[letters, p] for p in probabilities]
        rows.append([str(letters), *(f"{p['right_rejected']} / {p['wrong_rejected']}" for p in parts)])
    return markdown(rows)


def rewrite(page: Path, found: Found) -> None:
    """Put the section between the marks of the page; SdrrlError where they are missing."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SdrrlError(f"{page}: the lines '{BEGIN}' and '{END}' are not there; add them where the tables belong")
    with atomic_write(page) as f:
        f.write("\n".join([before + BEGIN, "", *section(found), END]) + after)
