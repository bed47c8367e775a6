"""Which charts the report has, drawn with the plain shapes of svg.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from sdrrl_nemo.report.svg import Group, Series, change_chart, line_chart, marker_key, scatter, share_bar

SOURCE, TARGET, OTHER, TOO_SHORT = 1, 2, 4, 7
"""Colour classes of the two languages and of everything else, the same in every chart."""
SIDES = (("source", SOURCE, 0), ("target", TARGET, 1))
"""Side, colour and marker of each language in a map."""


def all_charts(results: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Every chart that follows from results.json alone."""
    return {
        "loss": change_chart(
            "Held-out loss, base and trained",
            [(r["title"], r["base"], r["trained"]) for r in results["loss"]],
            "nats per answer token (left is better)",
        ),
        "tsne": {role: _tsne(results, role, names) for role in ("base", "trained")},
        "tsne_key": language_key(results["languages"]),
        "languages": {
            row["task"]: {role: _languages(row, role, results) for role in ("base", "trained")}
            for row in results["off_target"]
        },
    }


def _tsne(results: dict[str, Any], role: str, names: dict[str, str]) -> Markup:
    a = results["alignment"]
    of_side = {side: names[about["code"]] for side, about in results["languages"].items()}
    return language_map(f"t-SNE of parallel questions, {role} model", a["tsne"][role], a["texts"], of_side)


def language_map(
    title: str, points: dict[str, list[list[float]]], texts: dict[str, list[str]], names: dict[str, str]
) -> Markup:
    """Both languages in one t-SNE map, a line from each question to its translation; all by side, source and target."""
    groups = [Group(names[s], points[s], texts[s] if points[s] else [], colour, marker) for s, colour, marker in SIDES]
    return scatter(title, groups, links=True)


def language_key(languages: dict[str, dict[str, str]]) -> list[tuple[Markup, str]]:
    """Markers of ``language_map`` with the languages' names."""
    return [(marker_key(colour, marker), languages[side]["name"]) for side, colour, marker in SIDES]


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


def training_curves(rows: list[dict[str, Any]], meaning: dict[str, str], mean: bool = False) -> list[dict[str, Any]]:
    """One small chart for the total loss and one per subset that was logged: raw thin, smoothed bold.

    ``mean``: the run's losses are Eq. 6 divided by the number of subsets.
    """
    total = "total loss (Eq. 6 divided by the number of subsets)" if mean else "total loss (Eq. 6)"
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
        title = f"{name}: {meaning[name]}" if name in meaning else total
        out.append({"title": title, "window": window, "svg": line_chart(title, series, "step", "loss")})
    return out
