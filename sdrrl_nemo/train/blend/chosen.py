"""Which packed sets a run trains on, and what its configuration says of each; nothing of the sets is opened here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.packing.blend_files import BLEND_JSON, manifest_of, prefixes
from sdrrl_nemo.train.config import DataSettings


@dataclass(frozen=True)
class ChosenSet:
    """One packed set of a blend. ``part``: number of the entry of ``data.blend`` that it belongs to; ``weight`` and
    ``sampling`` are that entry's."""

    prefix: Path
    part: int = 0
    weight: float = 1.0
    sampling: float | None = None


def chosen_sets(data: DataSettings) -> list[ChosenSet]:
    """The sets of a blend; empty where the run has one packed set, ``data.path``. SdrrlError where a part has none, or
    a set is named twice."""
    if not data.blend:
        folder = Path(data.path)
        apart = not manifest_of(folder / data.name).is_file() and (folder / BLEND_JSON).is_file()
        return [ChosenSet(prefix) for prefix in prefixes(folder)] if apart else []
    found: list[ChosenSet] = []
    for part, entry in enumerate(data.blend):
        found += [ChosenSet(p, part, entry.weight, entry.sampling) for p in _sets_of(entry.path, data.name, part)]
    places = [manifest_of(chosen.prefix).resolve() for chosen in found]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise SdrrlError(
                f"data.blend: the set {found[number].prefix} is named twice; to draw it more often, set its sampling "
                "and data.sampling: numbers"
            )
    return found


def _sets_of(path: str, name: str, part: int) -> list[Path]:
    """The prefixes that one entry's path stands for."""
    given = Path(path)
    if given.name == BLEND_JSON:
        return prefixes(given.parent)
    for prefix in (given / name, given):
        if manifest_of(prefix).is_file():
            return [prefix]
    if (given / BLEND_JSON).is_file():
        return prefixes(given)
    raise SdrrlError(
        f"data.blend[{part}].path: {path} is neither a folder with {name}.manifest.json or {BLEND_JSON} nor the path "
        "of a packed set without .bin; run tools/preprocess_sdrrl.py first"
    )


def held_out_of(chosen: Sequence[ChosenSet], name: str) -> list[Path]:
    """The prefixes of the held-out sets that belong to these: ``<folder>/<name>`` beside a mixed set, which other parts
    of the folder share, and ``<folder>/<name>/<subset>`` of a set by subset. SdrrlError where one has none."""
    found: list[Path] = []
    for prefix in (c.prefix for c in chosen):
        tried = (prefix.with_name(name), prefix.parent / name / prefix.name)
        there = [p for p in tried if manifest_of(p).is_file()]
        if not there:
            raise SdrrlError(
                f"data.validation: {name}: the set {prefix} has no held-out set ({tried[0]} and {tried[1]} are not "
                "there); preprocess with packing.validation_fraction, or leave data.validation empty"
            )
        found += [p for p in there if p not in found]
    return found


def shares(data: DataSettings, chosen: Sequence[ChosenSet], rows: Sequence[int]) -> tuple[float, ...]:
    """Each set's share of an epoch's rows, sum 1, where ``rows`` are those it has; empty: every row comes once."""
    have = np.asarray(rows, np.float64)
    if data.sampling == "proportional":
        return ()
    if data.sampling == "numbers":
        parts = np.asarray([c.part for c in chosen])
        numbers = np.asarray([float(c.sampling or 0) for c in chosen])
        wanted = numbers * have / np.bincount(parts, weights=have)[parts]
    else:
        wanted = have ** (0.0 if data.sampling == "equal" else 1.0 / data.temperature)
    return tuple(float(x) for x in wanted / wanted.sum())


def objective(
    data: DataSettings, names: Sequence[str], chosen: Sequence[ChosenSet], subsets_of: Sequence[Sequence[str]]
) -> list[float]:
    """lambda_d of each subset of ``names``: what ``data.objective`` says of it, times the weight of the sets that have
    it (``subsets_of``: the subsets of each chosen set).

    SdrrlError where a name of ``data.objective`` fits no subset, or two sets that share one have different weights.
    """
    found = dict.fromkeys(names, 1.0)
    for pattern, value in data.objective.items():
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            raise SdrrlError(f"data.objective: '{pattern}' is no subset of this run{suggest(pattern, names)}")
        found |= dict.fromkeys(fitting, float(value))
    owner: dict[str, ChosenSet] = {}
    for one, own in zip(chosen, subsets_of, strict=True):
        for name in own:
            first = owner.setdefault(name, one)
            if first.weight != one.weight:
                raise SdrrlError(
                    f"data.blend: {first.prefix} (weight {first.weight:g}) and {one.prefix} (weight {one.weight:g}) "
                    f"both have samples of the subset {name}, whose mean has one weight; give both the same, or set "
                    "data.objective"
                )
    out = [value * (owner[name].weight if name in owner else 1.0) for name, value in found.items()]
    if not any(out):
        raise SdrrlError("data.objective: every subset has the weight 0, so there is no loss")
    return out
