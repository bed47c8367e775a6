"""What a run was trained on: stats.json of its packed set, or of all sets of its blend together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdrrl_nemo.report.build import read_optional

LEVELS = 4
"""How far above a blend's path its stats.json can lie: ``packed/<pair>/<subset>`` is three levels below it."""


def stats_of_run(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """stats.json of the preprocessing, or of several put together; None where one of them is gone, since licences would
    be left out."""
    data = config.get("data") or {}
    if data.get("path"):
        return read_optional(Path(data["path"]).parent, "stats.json")
    folders = [_folder(str(entry.get("path", ""))) for entry in data.get("blend") or ()]
    known = [read_optional(folder, "stats.json") if folder else None for folder in dict.fromkeys(folders)]
    found = [stats for stats in known if stats]
    return merged_stats(found) if found and len(found) == len(known) else None


def _folder(path: str) -> Path | None:
    """The preprocessing's folder that a path of a blend lies in."""
    above = [Path(path), *Path(path).parents][:LEVELS]
    return next((folder for folder in above if (folder / "stats.json").is_file()), None)


def merged_stats(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What cards read of several stats.json: pairs, engines and licences of all of them, subsets by pair, counts added
    up; the method where all have the same."""
    if len(parts) == 1:
        return parts[0]
    subsets: dict[str, dict[str, Any]] = {}
    for stats in parts:
        pair = f".{stats['pairs'][0]}" if len(stats["pairs"]) == 1 else ""
        for name, own in stats["subsets"].items():
            known = subsets.setdefault(name + pair, {"samples": 0, "tokens": 0, "answer_tokens": 0})
            for key in known:
                known[key] += own[key]
    methods = {stats["method"] for stats in parts}
    return {
        "method": methods.pop() if len(methods) == 1 else "several",
        "pairs": list(dict.fromkeys(pair for stats in parts for pair in stats["pairs"])),
        "subsets": subsets,
        "packing": {key: sum(stats["packing"][key] for stats in parts) for key in ("samples", "tokens")},
        "engines": _once([e for stats in parts for e in stats["engines"]]),
        "licences": _once([e for stats in parts for e in stats.get("licences") or ()]),
    }


def _once(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for number, item in enumerate(items) if item not in items[:number]]


def objectives(identity: Mapping[str, Any]) -> dict[str, float]:
    """lambda_d of the subsets of a run that do not count 1; empty for Eq. 6 as it stands."""
    blended = {name: s["objective"] for name, s in ((identity.get("blend") or {}).get("subsets") or {}).items()}
    return {name: value for name, value in (blended or identity.get("objective") or {}).items() if value != 1}
