"""Small inline SVG charts: lines, scatter, horizontal bars. Colours and fonts come from the page's style sheet.

Every chart is drawn for about 360 units of width, so that it stays legible on a phone and tiles on a desktop.
Series differ by colour class (``s0`` to ``s6``) and by dash or marker too, never by colour alone. All text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4")
TICK_CHARACTER = 6.5
"""Width of a digit in a label of an axis, in units of the picture."""


@dataclass(frozen=True)
class Series:
    """One line: points in drawing order; ``colour`` is the class number; ``thin`` marks unsmoothed data."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int = 0
    thin: bool = False


@dataclass(frozen=True)
class Group:
    """One cloud of points; ``labels`` become tooltips; marker 0 is a circle, 1 a diamond."""

    name: str
    points: Sequence[Sequence[float]]
    labels: Sequence[str]
    colour: int = 0
    marker: int = 0


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that span [low, high]; about ``count`` of them."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("axis limits must be finite")
    if high - low <= 1e-9 * max(1.0, abs(low), abs(high)):  # one value, or as good as one
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _number(x: float) -> str:
    return f"{x:.2f}".rstrip("0").rstrip(".")


def _label(x: float) -> str:
    if x and abs(x) < 1e-3:
        return f"{x:.0e}"
    return f"{x:,.3f}".rstrip("0").rstrip(".") if x != int(x) else f"{int(x):,}"


def _open(width: int, height: int, title: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">'
    )


def _tick(x: float, y: float, text: str, width: int) -> str:
    """A label under an axis, centred at ``x``, or ending with the picture where it would not fit into it."""
    fits = x + len(text) * TICK_CHARACTER / 2 <= width
    place = f'x="{x:.1f}" y="{y}" text-anchor="middle"' if fits else f'x="{width}" y="{y}" text-anchor="end"'
    return f'<text class="tick" {place}>{text}</text>'


def line_chart(title: str, series: Sequence[Series], x_label: str, y_label: str, height: int = 220) -> Markup:
    """Lines on a common linear axis; points that are not finite are left out. Empty data gives an empty string."""
    width, left, right, top, bottom = 360, 46, 10, 10, 36
    cleaned = [
        (s, [(x, y) for x, y in zip(s.xs, s.ys, strict=True) if math.isfinite(x) and math.isfinite(y)]) for s in series
    ]
    points = [p for _, ps in cleaned for p in ps]
    if not points:
        return Markup("")
    x_low, x_high = min(p[0] for p in points), max(p[0] for p in points)
    if x_high == x_low:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    x_ticks = [x for x in nice_ticks(x_low, x_high) if x_low <= x <= x_high]
    y_ticks = nice_ticks(min(p[1] for p in points), max(p[1] for p in points))

    def sx(x: float) -> float:
        return left + (x - x_low) / (x_high - x_low) * (width - left - right)

    def sy(y: float) -> float:
        return height - bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (height - top - bottom)

    out = [_open(width, height, title)]
    for y in y_ticks:
        out.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{sy(y):.1f}" y2="{sy(y):.1f}"/>')
        out.append(f'<text class="tick" x="{left - 6}" y="{sy(y) + 4:.1f}" text-anchor="end">{_label(y)}</text>')
    for x in x_ticks:
        out.append(_tick(sx(x), height - bottom + 15, _label(x), width))
    out.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{height - bottom}" y2="{height - bottom}"/>')
    middle = left + (width - left - right) / 2
    out.append(f'<text class="tick" x="{middle:.0f}" y="{height - 4}" text-anchor="middle">{escape(x_label)}</text>')
    out.append(f'<text class="tick" transform="translate(11 {(height - bottom) / 2:.0f}) rotate(-90)" '
               f'text-anchor="middle">{escape(y_label)}</text>')  # fmt: skip
    bold = 0
    for s, ps in cleaned:
        if not ps:
            continue
        path = " ".join(f"{_number(sx(x))},{_number(sy(y))}" for x, y in ps)
        dash = "" if s.thin else _dash(bold)
        bold = bold if s.thin else (bold + 1) % len(DASHES)
        style = "thin" if s.thin else "line"
        out.append(
            f'<polyline class="{style} s{s.colour}" points="{path}"{dash}><title>{escape(s.name)}</title></polyline>'
        )
    out.append("</svg>")
    return Markup("".join(out))


def _dash(number: int) -> str:
    """Stroke of the line ``number`` of a chart."""
    return f' stroke-dasharray="{DASHES[number]}"' if DASHES[number] else ""


def line_key(number: int, colour: int) -> Markup:
    """The stroke of line ``number`` of a chart, for the legend beside it."""
    return Markup(
        '<svg class="chart line-key" viewBox="0 0 30 10" aria-hidden="true">'
        f'<polyline class="line s{colour}" points="1,5 29,5"{_dash(number % len(DASHES))}/></svg>'
    )


def _mark(marker: int, x: float, y: float, r: float) -> str:
    if marker == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}">'
    d = r * 1.25
    return f'<path d="M{x:.1f} {y - d:.1f}L{x + d:.1f} {y:.1f}L{x:.1f} {y + d:.1f}L{x - d:.1f} {y:.1f}Z">'


def scatter(title: str, groups: Sequence[Group], links: bool = False, size: int = 340) -> Markup:
    """Clouds of points without axes (t-SNE has none); ``links`` joins point i of the first two groups."""
    points = [p for g in groups for p in g.points]
    if not points:
        return Markup("")
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    span = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    pad = 14
    scale = (size - 2 * pad) / span
    cx, cy = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2

    def at(p: Sequence[float]) -> tuple[float, float]:
        return size / 2 + (p[0] - cx) * scale, size / 2 - (p[1] - cy) * scale

    out = [_open(size, size, title), f'<rect class="frame" x="0.5" y="0.5" width="{size - 1}" height="{size - 1}"/>']
    if links and len(groups) >= 2:
        for p, q in zip(groups[0].points, groups[1].points, strict=True):
            (x1, y1), (x2, y2) = at(p), at(q)
            out.append(f'<line class="link" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    for g in groups:
        closing = "</circle>" if g.marker == 0 else "</path>"
        out.append(f'<g class="dots s{g.colour}">')
        for p, text in zip(g.points, g.labels, strict=True):
            x, y = at(p)
            out.append(f"{_mark(g.marker, x, y, 4)}<title>{escape(g.name)}: {escape(text)}</title>{closing}")
        out.append("</g>")
    out.append("</svg>")
    return Markup("".join(out))


def marker_key(colour: int, marker: int) -> Markup:
    """A marker for the legend beside a scatter."""
    closing = "</circle>" if marker == 0 else "</path>"
    mark = _mark(marker, 7, 7, 4.5) + closing
    return Markup(f'<svg class="key" viewBox="0 0 14 14" aria-hidden="true"><g class="dots s{colour}">{mark}</g></svg>')


def change_chart(title: str, rows: Sequence[tuple[str, float, float]], x_label: str) -> Markup:
    """One line per row from the base's value (open circle) to the trained model's (filled): name, base, trained."""
    if not rows:
        return Markup("")
    width, pitch, top, bottom, left, right = 360, 40, 6, 34, 12, 16
    height = top + pitch * len(rows) + bottom
    values = [v for _, a, b in rows for v in (a, b)]
    ticks = nice_ticks(min(values), max(values))

    def sx(x: float) -> float:
        return left + (x - ticks[0]) / (ticks[-1] - ticks[0]) * (width - left - right)

    out = [_open(width, height, title)]
    for x in ticks:
        out.append(f'<line class="grid" x1="{sx(x):.1f}" x2="{sx(x):.1f}" y1="{top}" y2="{height - bottom}"/>')
        out.append(_tick(sx(x), height - bottom + 14, _label(x), width))
    out.append(f'<text class="tick" x="{width / 2:.0f}" y="{height - 3}" text-anchor="middle">{escape(x_label)}</text>')
    for i, (name, a, b) in enumerate(rows):
        y = top + pitch * i + 28
        kind = "fall" if b < a else "rise"
        out.append(f'<text class="row" x="{left}" y="{y - 12}">{escape(name)}</text>')
        out.append(f'<line class="move {kind}" x1="{sx(a):.1f}" x2="{sx(b):.1f}" y1="{y}" y2="{y}"/>')
        out.append(f'<circle class="from" cx="{sx(a):.1f}" cy="{y}" r="4.5"><title>base {a:.4g}</title></circle>')
        out.append(
            f'<circle class="to {kind}" cx="{sx(b):.1f}" cy="{y}" r="4.5"><title>trained {b:.4g}</title></circle>'
        )
    out.append("</svg>")
    return Markup("".join(out))


def share_bar(title: str, parts: Sequence[tuple[str, int, int]]) -> Markup:
    """One stacked bar: (label, count, colour class) in order; widths are shares of the total."""
    total = sum(n for _, n, _ in parts)
    if total <= 0:
        return Markup("")
    width, height = 250, 22  # narrower than the others: it shares its line with a label
    out, x = [_open(width, height, title)], 0.0
    for label, n, colour in parts:
        w = n / total * width
        if w <= 0:
            continue
        text = f"{label} {n}"
        out.append(f'<rect class="part s{colour}" x="{x:.2f}" y="0" width="{max(w - 1, 0.5):.2f}" height="{height}">'
                   f"<title>{escape(text)} of {total}</title></rect>")  # fmt: skip
        if w > 7.5 * len(text) + 6:
            out.append(
                f'<text class="inbar s{colour}" x="{x + w / 2:.1f}" y="15" text-anchor="middle">{escape(text)}</text>'
            )
        x += w
    out.append("</svg>")
    return Markup("".join(out))


@dataclass(frozen=True)
class BarRow:
    """One labelled bar: parts are (what, count, colour class) from left to right; ``note`` stands at its right end."""

    label: str
    parts: Sequence[tuple[str, int, int]]
    note: str = ""


def bar_rows(title: str, rows: Sequence[BarRow], shared: bool) -> Markup:
    """Horizontal stacked bars, one under the other, each with its label above it.

    ``shared``: one scale for all bars, so that lengths compare counts; otherwise each bar shows the shares of its own
    total. Empty data gives an empty string.
    """
    if not rows:
        return Markup("")
    width, pitch, height = 360, 34, 10
    longest = max(sum(n for _, n, _ in row.parts) for row in rows)
    out = [_open(width, pitch * len(rows), title)]
    for i, row in enumerate(rows):
        top, x = pitch * i, 0.0
        total = longest if shared else sum(n for _, n, _ in row.parts)
        out.append(f'<text class="row" x="0" y="{top + 13}">{escape(row.label)}</text>')
        out.append(f'<text class="row" x="{width}" y="{top + 13}" text-anchor="end">{escape(row.note)}</text>')
        out.append(f'<rect class="track" x="0" y="{top + 18}" width="{width}" height="{height}"/>')
        for what, n, colour in row.parts:
            w = n / total * width if total else 0.0
            if n:
                out.append(f'<rect class="part s{colour}" x="{x:.2f}" y="{top + 18}" width="{max(w, 1):.2f}" '
                           f'height="{height}"><title>{escape(row.label)}, {escape(what)}: {n:,}</title>'
                           "</rect>")  # fmt: skip
            x += w
    out.append("</svg>")
    return Markup("".join(out))


@dataclass(frozen=True)
class Bars:
    """Counts of one quantity in consecutive bins."""

    name: str
    counts: Sequence[int]
    colour: int


def histogram(
    title: str,
    bins: Sequence[str],
    series: Sequence[Bars],
    ticks: Sequence[tuple[float, str]],
    labels: tuple[str, str],
    mark: tuple[float, str] | None = None,
) -> Markup:
    """Bars side by side over bins of equal width on the page; heights are shares of each series in per cent.

    ``bins``: what each bin covers, for tooltips. ``ticks`` and ``mark`` (a dashed line with a name): (position in bins
    from the left edge, text). ``labels``: of the two axes. Empty data gives an empty string.
    """
    totals = [sum(s.counts) for s in series]
    if not bins or not any(totals):
        return Markup("")
    width, height, left, right, top, bottom = 360, 210, 46, 16, 16, 36
    shares = [[100 * n / max(total, 1) for n in s.counts] for s, total in zip(series, totals, strict=True)]
    y_ticks = nice_ticks(0.0, max(map(max, shares)))
    pitch = (width - left - right) / len(bins)
    bar = pitch * 0.86 / len(series)

    def sy(y: float) -> float:
        return height - bottom - y / y_ticks[-1] * (height - top - bottom)

    out = [_open(width, height, title)]
    for y in y_ticks:
        out.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{sy(y):.1f}" y2="{sy(y):.1f}"/>')
        out.append(f'<text class="tick" x="{left - 6}" y="{sy(y) + 4:.1f}" text-anchor="end">{_label(y)}</text>')
    for k, (s, heights) in enumerate(zip(series, shares, strict=True)):
        for i, (n, y) in enumerate(zip(s.counts, heights, strict=True)):
            if n:
                x = left + pitch * (i + 0.07) + bar * k
                out.append(f'<rect class="part s{s.colour}" x="{x:.2f}" y="{sy(y):.2f}" width="{bar:.2f}" '
                           f'height="{max(sy(0) - sy(y), 0.5):.2f}"><title>{escape(s.name)}, {escape(bins[i])}: '
                           f"{n:,} ({y:.1f} %)</title></rect>")  # fmt: skip
    out.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{sy(0):.1f}" y2="{sy(0):.1f}"/>')
    for position, text in ticks:
        x = left + pitch * position
        out.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{sy(0):.1f}" y2="{sy(0) + 4:.1f}"/>')
        out.append(f'<text class="tick" x="{x:.1f}" y="{sy(0) + 16:.1f}" text-anchor="middle">{escape(text)}</text>')
    if mark is not None:
        x = left + pitch * mark[0]
        side = "end" if mark[0] > len(bins) / 2 else "start"
        out.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{sy(0):.1f}"/>')
        out.append(f'<text class="row" x="{x + (4 if side == "start" else -4):.1f}" y="{top + 4}" '
                   f'text-anchor="{side}">{escape(mark[1])}</text>')  # fmt: skip
    middle = left + (width - left - right) / 2
    out.append(f'<text class="tick" x="{middle:.0f}" y="{height - 4}" text-anchor="middle">{escape(labels[0])}</text>')
    out.append(f'<text class="tick" transform="translate(11 {(height - bottom) / 2:.0f}) rotate(-90)" '
               f'text-anchor="middle">{escape(labels[1])}</text>')  # fmt: skip
    out.append("</svg>")
    return Markup("".join(out))
