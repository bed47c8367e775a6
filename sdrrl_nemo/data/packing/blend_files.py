"""``blend.json`` and ``blend.txt``: packed sets that belong together, and how often each of them is drawn from.

``packing.by: subset`` writes both beside its sets. ``blend.json`` is for `data.blend` of training; ``blend.txt`` is one
line, ``w1 prefix1 w2 prefix2 ...``, the form of Megatron-LM's ``--data-path``. A prefix is the path of a set without
``.bin`` or ``.idx``, relative to the folder of the two files. The weights here are numbers of packs, which Megatron
divides by their sum: drawn by them, every pack comes once an epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, read_json_object, write_json

FORMAT = "sdrrl-blend/1"
BLEND_JSON, BLEND_TXT = "blend.json", "blend.txt"


def write_blend(folder: Path, sets: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Write both files into ``folder``. Each of ``sets`` has at least ``prefix`` and ``weight``; ``about`` says what
    holds for all of them."""
    with atomic_write(folder / BLEND_TXT) as f:
        f.write(megatron_line((s["weight"], s["prefix"]) for s in sets) + "\n")
    write_json(folder / BLEND_JSON, {"format": FORMAT, **about, "sets": list(sets)})


def megatron_line(weighted: Iterable[tuple[float, str]]) -> str:
    """``w1 prefix1 w2 prefix2 ...`` of (weight, prefix)."""
    return " ".join(f"{weight:.10g} {prefix}" for weight, prefix in weighted)


def prefixes(folder: Path) -> list[Path]:
    """The prefixes of the sets that ``folder/blend.json`` lists, in its order; SdrrlError where it is none."""
    path = folder / BLEND_JSON
    found = read_json_object(path)
    if found.get("format") != FORMAT:
        raise SdrrlError(f"{path}: format '{found.get('format')}' is not '{FORMAT}' of this version; preprocess again")
    try:
        return [folder / s["prefix"] for s in found["sets"]]
    except (KeyError, TypeError) as e:
        raise SdrrlError(f"{path}: {e} is missing or of the wrong kind; preprocess again") from None


def packed_prefixes(folder: Path, name: str) -> list[Path]:
    """The prefixes of the packed sets in ``folder``: of the set ``name``, or of the sets by subset."""
    if not manifest_of(folder / name).is_file() and (folder / BLEND_JSON).is_file():
        return prefixes(folder)
    return [folder / name]


def manifest_of(prefix: Path) -> Path:
    """The manifest of a packed set."""
    return prefix.with_name(f"{prefix.name}.manifest.json")


def merged_manifest(manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the manifests of one run's sets say together: the counts added up, all else as the first has it."""
    first = dict(manifests[0])
    if len(manifests) == 1:
        return first
    totals = {key: sum(int(m[key]) for m in manifests) for key in ("packs", "samples", "tokens")}
    subsets: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        for name, facts in manifest["subsets"].items():
            known = subsets.setdefault(name, dict.fromkeys(facts, 0))
            subsets[name] = {key: known.get(key, 0) + value for key, value in facts.items()}
    efficiency = totals["tokens"] / (totals["packs"] * first["seq_length"])
    names = {"subset_names": list(subsets), "subsets": subsets}
    return {**first, **totals, **names, "packing_efficiency": efficiency}
