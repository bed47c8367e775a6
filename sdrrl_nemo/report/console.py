"""The same figures as a short table for the terminal."""

from __future__ import annotations

from typing import Any


def figure(value: float | None, unit: str) -> str:
    """A number as people read it; a dash where nothing could be measured."""
    if value is None:
        return "–"
    if unit == "rate":
        return f"{value:.1%}"
    return f"{value:.2f}" if unit in ("BLEU", "chrF") else f"{value:.3f}"


def summary(results: dict[str, Any]) -> str:
    """Goals, then every measure of both models, then the sacreBLEU signatures."""
    lines = []
    for goal in results["goals"]:
        mark = {True: "met    ", False: "NOT MET", None: "unknown"}[goal["met"]]
        lines.append(f"[{mark}] {goal['title']}: {goal['sentence']}")
    rows = [*results["loss"], *results["translation"], *results["off_target"], *results["alignment"]["measures"]]
    width = max(len(r["title"]) for r in rows)
    lines.append(f"\n{'measure':<{width}}  {'base':>8}  {'trained':>8}  verdict")
    for r in rows:
        base, trained = figure(r["base"], r["unit"]), figure(r["trained"], r["unit"])
        lines.append(f"{r['title']:<{width}}  {base:>8}  {trained:>8}  {r['verdict']}")
    lines.append("")
    for signature in sorted({(r["unit"], r["signature"]) for r in results["translation"]}):
        lines.append(f"{signature[0]} signature: {signature[1]}")
    return "\n".join(lines)
