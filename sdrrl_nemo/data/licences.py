"""What the licences of a run's inputs allow: engines, instruction sets, base model; shown first, kept in stats.json."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.pairs import for_language

Part = dict[str, Any]

PUBLISHED = {
    # github.com/tatsu-lab/stanford_alpaca: README, "Usage and License Notices", and DATA_LICENSE. The cleaned sets are
    # edits of it; that some of their cards name other licences does not lift its terms.
    "alpaca_data.json": "CC-BY-NC-4.0",
    "alpaca_data_cleaned.json": "CC-BY-NC-4.0",
    "hub:tatsu-lab/alpaca": "CC-BY-NC-4.0",
    "hub:yahma/alpaca-cleaned": "CC-BY-NC-4.0",
    # github.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM: README and DATA_LICENSE
    "alpaca_gpt4_data.json": "CC-BY-NC-4.0",
    # its card on the hub, databricks/databricks-dolly-15k
    "databricks-dolly-15k.jsonl": "CC-BY-SA-3.0",
    "hub:databricks/databricks-dolly-15k": "CC-BY-SA-3.0",
    "instructions_en.jsonl": "CC0-1.0",  # this repository's data/
}
"""Licences of instruction sets that are known by their name."""
SHAREGPT = "unclear: conversations that users of ChatGPT shared"
"""Copies on the hub call themselves Apache-2.0; neither the users nor OpenAI said so."""
FORBIDS_COMMERCE = re.compile(r"\bNC\b|non-?commercial|research.only", re.IGNORECASE)
SHARE_ALIKE = re.compile(r"\bSA\b|GPL", re.IGNORECASE)
UNKNOWN = re.compile(r"unstated|unclear|unknown|by source|^other$|^$", re.IGNORECASE)
# Llama 2 and 3 community licences, section 1.b.v: outputs "to improve any other large language model"; from 3.1 on
# 1.b.i instead: a model trained on outputs is named Llama. The hub's ids are llama2, llama3, llama3.1, ...
FORBIDS_OTHER_MODELS = re.compile(r"\bllama[ -]?(?:2|3)(?!\.?\d)", re.IGNORECASE)
ASKS_FOR_NAME = re.compile(r"\bllama[ -]?3\.\d", re.IGNORECASE)
ANSWERING = ("generator", "model")
"""Roles whose outputs are in the set as y_hat."""

_FIRST_LINES = {
    "apache license": "Apache-2.0",
    "mit license": "MIT",
    "llama 2 community license": "llama2",
    "meta llama 3 community license": "llama3",
    "llama 3.1 community license": "llama3.1",
    "llama 3.2 community license": "llama3.2",
    "llama 3.3 community license": "llama3.3",
    "attribution-noncommercial 4.0 international": "CC-BY-NC-4.0",
    "attribution-noncommercial-sharealike 4.0 international": "CC-BY-NC-SA-4.0",
}
"""How a licence file begins -> the licence."""


def inputs(config: PreprocessConfig, sources: Iterable[str]) -> list[Part]:
    """Instruction set of each source language and the base model: {"role", "name", "for", "licence"}."""
    parts = []
    for source in sources:
        section = for_language(config, source).instructions
        name = section.path if section.path.startswith("hub:") else Path(section.path).name
        known = SHAREGPT if "sharegpt" in name.lower() else PUBLISHED.get(name, "unstated")
        stated = section.licence if section.licence != "unstated" else known
        parts.append({"role": "instructions", "name": name, "for": source, "licence": stated})
    parts.append({"role": "model", "name": Path(config.model).name, "for": "", "licence": model_licence(config.model)})
    return [{**p, "noncommercial": bool(FORBIDS_COMMERCE.search(p["licence"]))} for p in parts]


def model_licence(folder: str | Path) -> str:
    """The licence that a model's folder states: what tools/import_gguf.py kept of the GGUF file, the ``license`` field
    at the head of its README, or a licence file that begins like a known one; ``unstated`` without."""
    folder = Path(folder)
    if (folder / "import.json").is_file():
        return str(read_json(folder / "import.json").get("licence", "unstated"))
    stated = _stated_in_head(folder / "README.md")
    if stated:
        return stated
    for path in (p for name in ("LICENSE", "LICENSE.txt", "LICENSE.md") if (p := folder / name).is_file()):
        start = " ".join(path.read_text(encoding="utf-8", errors="replace")[:1000].lower().split()).lstrip("#= ")
        for first, licence in _FIRST_LINES.items():
            if start.startswith(first):
                return licence
    return "unstated"


def _stated_in_head(readme: Path) -> str:
    """``license`` of a model card's YAML head (``license_name`` where that says ``other``); '' where there is none."""
    if not readme.is_file():
        return ""
    parts = re.split(r"^---\s*$", readme.read_text(encoding="utf-8", errors="replace"), maxsplit=2, flags=re.MULTILINE)
    if len(parts) < 3 or parts[0].strip():
        return ""
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return ""
    fields = head if isinstance(head, dict) else {}
    stated = fields.get("license_name") if fields.get("license") == "other" else None
    stated = stated or fields.get("license") or ""
    return ", ".join(map(str, stated)) if isinstance(stated, list) else str(stated)


def restrictions(parts: Iterable[Part]) -> list[str]:
    """What the licences ask of whoever uses the transfer set, strictest first; one sentence each."""
    parts = list(parts)
    forbid = [p for p in parts if p.get("noncommercial") or FORBIDS_COMMERCE.search(p["licence"])]
    answering = [p for p in parts if p["role"] in ANSWERING]
    own = [p for p in answering if FORBIDS_OTHER_MODELS.search(p["licence"])]
    named = [p for p in answering if ASKS_FOR_NAME.search(p["licence"])]
    alike = [p for p in parts if SHARE_ALIKE.search(p["licence"])]
    unknown = [p for p in parts if UNKNOWN.search(p["licence"])]
    out = [f"not for commercial use: {_named(forbid)}"] if forbid else []
    out += [f"its answers not for training language models of another family: {_named(own)}"] if own else []
    out += [f"what its answers train is named Llama: {_named(named)}"] if named else []
    out += [f"to be passed on under the same terms, as far as they reach: {_named(alike)}"] if alike else []
    out += [f"licence unstated or unclear: {_named(unknown)}"] if unknown else []
    return out


def _named(parts: Iterable[Part]) -> str:
    return ", ".join(dict.fromkeys(f"{p['role']} {p['name']} ({p['licence']})" for p in parts))
