"""The YAML head of a data card or model card, in the words that model hubs read (Hugging Face's card metadata).

A head holds what a run recorded and nothing guessed: a licence without an id of its own becomes ``other``, one that
nobody stated ``unknown``, and the body of the card says which part it is of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from sdrrl_nemo.data.licences import UNKNOWN
from sdrrl_nemo.data.text.languages import LANGUAGES

HUB_LICENCES = (
    "apache-2.0",
    "mit",
    "cc0-1.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc-by-nc-3.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0",
    "gpl-2.0",
    "gpl-3.0",
    "lgpl-3.0",
    "agpl-3.0",
    "gemma",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
)
"""Ids of the hub's list that this project's parts can have."""
OTHER, UNSTATED = "other", "unknown"
IN_THE_SET = ("instructions", "generator", "model", "translator", "dictionary", "corpus")
"""Roles whose texts, or words, are in a transfer set; the others only judge."""
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
TAGS = ["sdrrl", "self-distillation", "multilingual", "cross-lingual", "arxiv:2402.12204"]


def front_matter(fields: dict[str, Any]) -> str:
    """The head between its two rules; fields without a value are left out."""
    kept = {k: _one_line(v) for k, v in fields.items() if v not in (None, "", [])}
    return f"---\n{yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=1000)}---\n"


def _one_line(value: Any) -> Any:
    """Texts without line breaks, so that none can end the head."""
    if isinstance(value, str):
        return " ".join(value.split())
    return [_one_line(v) for v in value] if isinstance(value, list) else value


def hub_licence(licence: str) -> str:
    """``CC-BY-SA-3.0`` -> ``cc-by-sa-3.0``; ``other`` where the hub has no id, ``unknown`` where none is stated."""
    plain = re.sub(r"(-or-later|-only|\+)$", "", licence.strip().lower())
    if plain in HUB_LICENCES:
        return plain
    return UNSTATED if UNKNOWN.search(licence) and plain != OTHER else OTHER


def hub_languages(pairs: Iterable[str]) -> list[str]:
    """``["eng-por"]`` -> ``["en", "pt"]``: the shortest code of each language, sources first."""
    split = [pair.split("-") for pair in pairs]
    codes = dict.fromkeys([source for source, _ in split] + [target for _, target in split])
    return [LANGUAGES[code].cld3 if code in LANGUAGES else code for code in codes]


def size_category(rows: int) -> str:
    """The hub's name of a number of rows."""
    return next((name for limit, name in SIZES if rows < limit), "10M<n<100M")


def recorded_parts(stats: dict[str, Any]) -> list[dict[str, Any]]:
    """Engines, instruction sets and base model of a run, each with its licence."""
    return [*stats["engines"], *(stats.get("licences") or [])]


def dataset_head(stats: dict[str, Any], title: str) -> str:
    """Head of a transfer set's card, from its stats.json."""
    parts = recorded_parts(stats)
    licences = [str(p.get("licence", "")) for p in parts if p["role"] in IN_THE_SET or p.get("noncommercial")]
    translates = any(name.partition(".")[0] == "mt" for name in stats["subsets"])
    return front_matter(
        {
            "pretty_name": title,
            "language": hub_languages(stats["pairs"]),
            "license": list(dict.fromkeys(hub_licence(licence) for licence in licences)),
            "task_categories": ["text-generation", *(["translation"] if translates else [])],
            "size_categories": [size_category(stats["packing"]["samples"])],
            "tags": [*TAGS, f"method:{stats['method']}"],
            "configs": [
                {"config_name": "default", "data_files": [{"split": "train", "path": "transfer_set.jsonl"}]},
            ],
        }
    )


def model_head(*, base: str, licence: str, more: list[str], stats: dict[str, Any] | None, lora: bool) -> str:
    """Head of a trained model's card.

    ``base``: the base model's id on a hub, or '' where only its folder is known. ``licence``: the base model's.
    ``more``: licences of training data that ask for more than it does, so that no one id says what holds. All are then
    named together, and whoever reads this head (data/licences.py does) still sees what they forbid.
    """
    known = OTHER if more else hub_licence(licence)
    names = [str(p["name"]) for p in recorded_parts(stats) if p["role"] == "instructions"] if stats else []
    datasets = [name.removeprefix("hub:") for name in names if name.startswith("hub:")]
    return front_matter(
        {
            "language": hub_languages(stats["pairs"]) if stats else None,
            "license": known,
            "license_name": _joined([licence, *more]) if known == OTHER else None,
            "license_link": "README.md#licences" if known == OTHER else None,
            "library_name": "transformers",
            "pipeline_tag": "text-generation",
            "base_model": base,
            "base_model_relation": "finetune" if base else None,
            "datasets": datasets,
            "tags": [*TAGS, *(["lora"] if lora else []), *([f"method:{stats['method']}"] if stats else [])],
        }
    )


def _joined(licences: list[str]) -> str:
    """Several licences as one name in the hub's letters."""
    return "-and-".join(dict.fromkeys(re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") for name in licences))


def hub_id(name: object) -> str:
    """``name`` where it looks like OWNER/NAME, else '': a path of somebody's disk is no id."""
    return name if isinstance(name, str) and REPOSITORY.fullmatch(name) else ""
