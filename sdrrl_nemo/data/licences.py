"""What the licences of a run's inputs allow: engines, instruction sets, base model; shown first, kept in stats.json."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.data.config import PreprocessConfig, for_language

Part = dict[str, Any]

PUBLISHED = {
    # tatsu-lab/stanford_alpaca, DATA_LICENSE: the data is CC BY NC 4.0; the cleaned set (gururise) keeps it
    "alpaca_data.json": "CC-BY-NC-4.0",
    "alpaca_data_cleaned.json": "CC-BY-NC-4.0",
    "hub:tatsu-lab/alpaca": "CC-BY-NC-4.0",
    "hub:yahma/alpaca-cleaned": "CC-BY-NC-4.0",
    "instructions_en.jsonl": "CC0-1.0",  # this repository's data/
}
"""Licences of instruction sets that are known by their name."""
FORBIDS_COMMERCE = re.compile(r"\bNC\b|non-?commercial|research.only", re.IGNORECASE)
SHARE_ALIKE = re.compile(r"\bSA\b|GPL", re.IGNORECASE)


def inputs(config: PreprocessConfig, sources: Iterable[str]) -> list[Part]:
    """Instruction set of each source language and the base model: {"role", "name", "for", "licence"}."""
    parts = []
    for source in sources:
        section = for_language(config, source).instructions
        name = section.path if section.path.startswith("hub:") else Path(section.path).name
        stated = section.licence if section.licence != "unstated" else PUBLISHED.get(name, "unstated")
        parts.append({"role": "instructions", "name": name, "for": source, "licence": stated})
    parts.append({"role": "model", "name": Path(config.model).name, "for": "", "licence": model_licence(config.model)})
    return [{**p, "noncommercial": bool(FORBIDS_COMMERCE.search(p["licence"]))} for p in parts]


def model_licence(folder: str | Path) -> str:
    """The licence that a model's folder states: what tools/import_gguf.py kept of the GGUF file, or the ``license``
    field at the head of its README."""
    folder = Path(folder)
    if (folder / "import.json").is_file():
        return str(read_json(folder / "import.json").get("licence", "unstated"))
    readme = folder / "README.md"
    if readme.is_file():
        head = readme.read_text(encoding="utf-8", errors="replace").split("---")
        stated = re.search(r"^license:\s*(\S+)", head[1], re.MULTILINE) if len(head) > 2 else None
        if stated:
            return stated[1]
    return "unstated"


def restrictions(parts: Iterable[Part]) -> list[str]:
    """What the licences ask of whoever uses the transfer set, strictest first; one sentence each."""
    parts = list(parts)
    forbid = [p for p in parts if p.get("noncommercial") or FORBIDS_COMMERCE.search(p["licence"])]
    alike = [p for p in parts if SHARE_ALIKE.search(p["licence"])]
    unstated = [p for p in parts if "unstated" in p["licence"] or not p["licence"]]
    out = [f"not for commercial use: {_named(forbid)}"] if forbid else []
    out += [f"to be passed on under the same terms, as far as they reach: {_named(alike)}"] if alike else []
    out += [f"licence unstated: {_named(unstated)}"] if unstated else []
    return out


def _named(parts: Iterable[Part]) -> str:
    return ", ".join(dict.fromkeys(f"{p['role']} {p['name']} ({p['licence']})" for p in parts))
