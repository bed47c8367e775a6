"""Charts of the study's page: a measure's methods as dots with the spread of their seeds, and loss curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from sdrrl_nemo.report.charts import moving_mean
from sdrrl_nemo.report.svg import Series, line_chart, line_key, nice_ticks

COLOURS = {"base": 0, "baseline": 1, "reference": 2, "ablation": 3}
"""Colour class of each kind of method, the same in every chart; each kind has a marker of its own too."""


@dataclass(frozen=True)
class Dots:
    """One method of a dot chart: mean, and the value of each run; ``kind``: a key of COLOURS."""

    label: str
    mean: float
    runs: Sequence[float]
    kind: str
    text: str


def _marker(kind: str, x: float, y: float) -> str:
    """Closed by the caller's title: circle (baseline), ring (base), diamond (reference), square (ablation)."""
    colour = COLOURS[kind]
    if kind == "base":
        return f'<circle class="ring s{colour}" cx="{x:.1f}" cy="{y}" r="4.5"/>'
    if kind == "reference":
        return f'<path class="mark s{colour}" d="M{x:.1f} {y - 6}L{x + 6:.1f} {y}L{x:.1f} {y + 6}L{x - 6:.1f} {y}Z"/>'
    if kind == "ablation":
        return f'<rect class="mark s{colour}" x="{x - 4.5:.1f}" y="{y - 4.5}" width="9" height="9"/>'
    return f'<circle class="mark s{colour}" cx="{x:.1f}" cy="{y}" r="4.8"/>'


def marker_key(kind: str) -> Markup:
    """A marker for the legend."""
    return Markup(f'<svg class="key" viewBox="0 0 14 14" aria-hidden="true">{_marker(kind, 7, 7)}</svg>')


def dot_chart(title: str, rows: Sequence[Dots], x_label: str) -> Markup:
    """One line a method: its mean as a marker, its runs as ticks on a line from the lowest to the highest, the figure
    as text at the right. Empty data gives an empty string."""
    rows = [r for r in rows if math.isfinite(r.mean)]
    if not rows:
        return Markup("")
    width, pitch, top, bottom, left, right = 360, 22, 6, 34, 138, 50
    height = top + pitch * len(rows) + bottom
    values = [v for r in rows for v in (r.mean, *r.runs) if math.isfinite(v)]
    ticks = nice_ticks(min(values), max(values), 4)

    def sx(x: float) -> float:
        return left + (x - ticks[0]) / (ticks[-1] - ticks[0]) * (width - left - right)

    out = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}" '
        'xmlns="http://www.w3.org/2000/svg">'
    ]
    for x in ticks:
        out.append(f'<line class="grid" x1="{sx(x):.1f}" x2="{sx(x):.1f}" y1="{top}" y2="{height - bottom}"/>')
        out.append(f'<text class="tick" x="{sx(x):.1f}" y="{height - bottom + 14}" text-anchor="middle">{x:g}</text>')
    middle = left + (width - left - right) / 2
    out.append(f'<text class="tick" x="{middle:.0f}" y="{height - 3}" text-anchor="middle">{escape(x_label)}</text>')
    for i, row in enumerate(rows):
        y = top + pitch * i + pitch // 2
        runs = [v for v in row.runs if math.isfinite(v)]
        out.append(f"<g><title>{escape(row.label)}: {escape(row.text)}</title>")
        out.append(f'<text class="row" x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(row.label)}</text>')
        if len(runs) > 1:
            low, high = sx(min(runs)), sx(max(runs))
            out.append(f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
            for v in runs:
                out.append(f'<line class="range" x1="{sx(v):.1f}" x2="{sx(v):.1f}" y1="{y - 4}" y2="{y + 4}"/>')
        out.append(_marker(row.kind, sx(row.mean), y))
        out.append(f'<text class="tick" x="{width - 2}" y="{y + 4}" text-anchor="end">{escape(row.text)}</text></g>')
    out.append("</svg>")
    return Markup("".join(out))


def tracking_chart(
    tracking: dict[str, Sequence[Sequence[Any]]], titles: dict[str, str], language: str
) -> dict[str, Any]:
    """Off-target rate against training tokens, one line a method: {"svg", "key": [(dash, title), ...]}."""
    series: list[Series] = []
    for method, points in tracking.items():
        judged = [(x, y) for x, y in points if y is not None]
        if judged:  # a line that is not drawn has no stroke: the next one takes it
            series.append(Series(titles[method], [x for x, _ in judged], [y for _, y in judged], len(series)))
    title = f"Off-target rate of {language} answers over training"
    chart = line_chart(title, series, "training tokens", "off-target, %")
    return {"svg": chart, "key": [(line_key(i, s.colour), s.name) for i, s in enumerate(series)]}


def loss_curves(curves: dict[str, dict[str, list[Any]]], titles: dict[str, str]) -> list[dict[str, Any]]:
    """One chart a method: every run thin, the mean over runs, smoothed, bold."""
    out = []
    for method, runs in curves.items():
        series = [
            Series(f"run {n}", list(range(1, len(run) + 1)), [math.nan if v is None else v for v in run], 7, thin=True)
            for n, run in runs.items()
        ]
        length = min(len(run) for run in runs.values())
        columns = [[v for run in runs.values() if (v := run[i]) is not None] for i in range(length)]
        mean = [math.fsum(c) / len(c) if c else math.nan for c in columns]
        series.append(Series("mean", list(range(1, length + 1)), moving_mean(mean, max(1, length // 6) | 1), 2))
        chart = line_chart(f"Training loss, {titles[method]}", series, "step", "loss")
        out.append({"title": titles[method], "runs": len(runs), "svg": chart})
    return out
