"""What a check found, as tables of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sdrrl_nemo.plan.report import table

HEAD = ("run", "tokens/s", "planned", "MFU", "planned", "GB", "planned", "first loss", "CPU fp32", "last loss")


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The whole summary: every part, what was trained, the loss kernels."""
    parts = {part["name"]: part for part in report["parts"]}
    yield ""
    yield from table([["part", "", "seconds", ""], *(_part_row(name, part) for name, part in parts.items())])
    runs = [_run_row(name, part) for name, part in parts.items() if "tokens_per_second" in part]
    if runs:
        yield ""
        yield from table([list(HEAD), *runs])
    kernels = [row for row in parts.get("kernel-times", {}).get("rows", []) if "ms" in row]
    if kernels:
        yield ""
        yield from table([["loss", "tokens", "vocabulary", "ms", "of the ceiling", "MiB"], *map(_kernel_row, kernels)])
    yield ""
    yield f"{report['name']}, {report['seconds']:.0f} s"


def _part_row(name: str, part: dict[str, Any]) -> list[str]:
    said = part.get("sentence", "")
    if not said and "passed" in part:
        said = f"{part['passed']} passed, {part['skipped']} skipped"
    return [name, part["status"], f"{part['seconds']:.0f}" if "seconds" in part else "", said]


def _run_row(name: str, part: dict[str, Any]) -> list[str]:
    plan = part.get("predicted") or {}
    return [
        name,
        _number(part["tokens_per_second"]),
        _number(plan.get("tokens_per_second")),
        _share(part["mfu"]),
        _share(plan.get("mfu")),
        _gb(part["peak_memory_gb"]),
        _gb(plan.get("memory_gb")),
        f"{part['first_losses'][0]:.4f}",
        f"{part['cpu_fp32_losses'][0]:.4f}",
        f"{part['last_loss']:.4f}",
    ]


def _kernel_row(row: dict[str, Any]) -> list[str]:
    share = row.get("share_of_copy", row.get("share_of_product"))
    name = f"{row['flow']}: {row['implementation']}" + (", forward" if row["pass"] == "forward" else "")
    return [name, str(row["n"]), str(row["vocab"]), f"{row['ms']:.2f}", _share(share), f"{row['peak_mib']:.0f}"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _gb(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
