"""What a run prints: engines and licences at start; stages, subsets, packing and files at the end."""

from __future__ import annotations

from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from sdrrl_nemo.data.licences import restrictions


def new_table(title: str, columns: list[tuple[str, bool]]) -> Table:
    """An empty table with its columns: name, and whether it holds numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for name, number in columns:
        table.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return table


def console_to(file: TextIO | None) -> Console:
    """Where tables are printed."""
    # A log file has no width of its own; 100 columns keep reasons on few lines.
    console = Console(file=file, highlight=False)
    return console if console.is_terminal else Console(file=file, highlight=False, width=120)


def print_engines(engines: list[dict[str, Any]], inputs: list[dict[str, Any]], file: TextIO | None = None) -> None:
    """Role, backend, version and licence of each engine, and which languages or pairs it serves; the licences of
    ``inputs`` (instruction sets, base model), and what all of them together allow."""
    columns = ("role", "backend", "for", "identity", "licence")
    table = new_table("Engines", [(name, False) for name in columns])
    for e in engines:
        table.add_row(e["role"], e["name"], e["for"], e["identity"], e["licence"])
    for part in inputs:
        table.add_row(part["role"], part["name"], part["for"], "", part["licence"])
    console = console_to(file)
    console.print(table)
    for line in restrictions([*engines, *inputs]):
        console.print(f"Licences: {line}.", soft_wrap=True)


def _counts(counts: dict[str, int]) -> str:
    return "\n".join(f"{reason}: {n:,}" for reason, n in counts.items())


def print_summary(stats: dict[str, Any], output_dir: str, file: TextIO | None = None) -> None:
    """Per stage in, out, dropped by reason; per subset samples, tokens and the weight 1/|D_d| of Eq. 6; packing."""
    console = console_to(file)
    columns = [("in", True), ("out", True), ("dropped, by reason", False), ("notes", False), ("s", True)]
    stages = new_table("Stages", [("stage", False), *columns])
    for s in stats["stages"]:
        row = (s["name"], f"{s['in']:,}", f"{s['out']:,}", _counts(s["dropped"]), _counts(s["notes"]))
        stages.add_row(*row, f"{s['seconds']:.1f}")
    console.print(stages)
    columns = [("samples", True), ("tokens", True), ("answer tokens", True), ("weight 1/|D_d|", True)]
    subsets = new_table("Subsets", [("subset", False), *columns])
    for d, s in stats["subsets"].items():
        subsets.add_row(d, f"{s['samples']:,}", f"{s['tokens']:,}", f"{s['answer_tokens']:,}", f"{s['weight']:.6f}")
    console.print(subsets)
    p = stats["packing"]
    console.print(
        f"Packing: {p['samples']:,} samples, {p['tokens']:,} tokens in {p['packs']:,} packs of {p['seq_length']}; "
        f"efficiency {100 * p['packing_efficiency']:.2f}%"
    )
    for pair, held in stats["heldout"].items():
        console.print(f"Held out, {pair}: {held['questions']} questions, {held['pairs']} parallel sentences")
    console.print(f"Written to {output_dir}", soft_wrap=True)
