"""Which charts the report has, drawn with the plain shapes of svg.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from sdrrl_nemo.report.svg import Group, Series, change_chart, line_chart, marker_key, scatter, share_bar

SOURCE, TARGET, OTHER, TOO_SHORT = 1, 2, 4, 7
"""Colour classes of the two languages and of everything else, the same in every chart."""


def all_charts(results: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Every chart that follows from results.json alone."""
    return {
        "loss": change_chart(
            "Held-out loss, base and trained",
            [(r["title"], r["base"], r["trained"]) for r in results["loss"]],
            "nats per answer token (left is better)",
        ),
        "tsne": {role: _tsne(results, role, names) for role in ("base", "trained")},
        "tsne_key": [
            (marker_key(SOURCE, 0), results["languages"]["source"]["name"]),
            (marker_key(TARGET, 1), results["languages"]["target"]["name"]),
        ],
        "languages": {
            row["task"]: {role: _languages(row, role, results) for role in ("base", "trained")}
            for row in results["off_target"]
        },
    }


def _tsne(results: dict[str, Any], role: str, names: dict[str, str]) -> Markup:
    a = results["alignment"]
    flat, texts = a["tsne"][role], a["texts"]
    sides = (("source", SOURCE, 0), ("target", TARGET, 1))
    groups = [
        Group(names[results["languages"][s]["code"]], flat[s], texts[s] if flat[s] else [], colour, marker)
        for s, colour, marker in sides
    ]
    return scatter(f"t-SNE of parallel questions, {role} model", groups, links=True)


def _languages(row: dict[str, Any], role: str, results: dict[str, Any]) -> Markup:
    details = row["details"][role]
    colours = {results["languages"]["source"]["code"]: SOURCE, results["languages"]["target"]["code"]: TARGET}
    order = sorted(details["languages"].items(), key=lambda kv: (kv[0] != row["expected"], -kv[1], kv[0]))
    parts = [(code, n, colours.get(code, OTHER)) for code, n in order]
    if details["too_short"]:
        parts.append(("too short", details["too_short"], TOO_SHORT))
    return share_bar(f"{row['title']}, {role} model", parts)


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """Centred mean over ``window`` (odd) values, shorter at the ends."""
    half = window // 2
    return [
        math.fsum(part) / len(part) for part in (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    ]


def loss_keys(rows: list[dict[str, Any]]) -> list[str]:
    """The total and every subset's loss, in the order in which the run logged them."""
    return list(dict.fromkeys(k for row in rows for k in row if k == "loss" or k.startswith("loss_")))


def training_curves(rows: list[dict[str, Any]], meaning: dict[str, str]) -> list[dict[str, Any]]:
    """One small chart for the total loss and one per subset that was logged: raw thin, smoothed bold."""
    out = []
    for number, key in enumerate(loss_keys(rows)):
        points = [
            (r["step"], float(r[key])) for r in rows if isinstance(r.get(key), int | float) and math.isfinite(r[key])
        ]
        if not points:
            continue
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        window = max(1, len(ys) // 12) | 1
        series = [Series("smoothed", xs, moving_mean(ys, window), number)]
        if window > 1:
            series.insert(0, Series("each step", xs, ys, number, thin=True))
        name = key.removeprefix("loss_") if key != "loss" else "total"
        title = f"{name}: {meaning[name]}" if name in meaning else "total loss (Eq. 6)"
        out.append({"title": title, "window": window, "svg": line_chart(title, series, "step", "loss")})
    return out
