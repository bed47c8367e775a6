"""Rotary positions in a config.json: two ways to write them, one meaning.

transformers 4 has ``rope_theta`` and ``rope_scaling``, 5 has both in ``rope_parameters``; each reads the other's names
partly or not at all, and takes a default without a word: 4.57 trains a base of 10,000 for one of 500,000. So the keys
are read here, and a file in which they contradict each other is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError

LARGEST = sys.float_info.max
NAMES = ("rope_parameters", "rope_scaling", "rope_theta")
SLIDING, FULL = "sliding_attention", "full_attention"
"""Types of layers, as 5 names them where each has rotary settings of its own."""


@dataclass(frozen=True)
class Rope:
    """What the keys say together. ``theta`` and ``partial``: None where the file leaves them to the model class."""

    theta: float | None = None
    kind: str = "default"
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the scaling: factor and the like, without type and base."""
    partial: float | None = None


def rope_of(document: Mapping[str, Any], where: str = "config.json") -> Rope:
    """The rotary positions of a config.json's content; SdrrlError for keys that contradict each other or are no number.

    Settings by type of layer are not one meaning: ask ``is_nested`` first.
    """
    parameters, scaling = (_mapping(document.get(name), name, where) for name in NAMES[:2])
    sections = {"rope_parameters": parameters, "rope_scaling": scaling}
    theta = _number("rope_theta", {"rope_theta": document, **sections}, where)
    partial = _number("partial_rotary_factor", {"partial_rotary_factor": document, **sections}, where)
    said = {name: _scaling(section, name, where) for name, section in sections.items() if section}
    if len({repr((kind, sorted(rest.items()))) for kind, rest in said.values()}) > 1:
        raise SdrrlError(
            f"{where}: rope_parameters and rope_scaling say different things, and versions of transformers follow one "
            "or the other; keep the one that the model was trained with"
        )
    kind, settings = next(iter(said.values()), ("default", {}))
    return Rope(theta, kind, settings, partial)


def is_nested(document: Mapping[str, Any]) -> bool:
    """Whether each type of layer has rotary settings of its own."""
    found = document.get("rope_parameters")
    return isinstance(found, dict) and any(isinstance(v, dict) for v in found.values())


def with_both_ropes(document: dict[str, Any], where: str = "config.json") -> dict[str, Any]:
    """The content of a config.json with the rotary settings as 4.57 and as 5 name them; unchanged where it has none."""
    if is_nested(document):
        return _nested_for_both(document, where)
    if all(document.get(name) is None for name in NAMES):
        return document
    rope = rope_of(document, where)
    base = {} if rope.theta is None else {"rope_theta": rope.theta}
    part = {} if rope.partial is None else {"partial_rotary_factor": rope.partial}
    scaling = {"rope_type": rope.kind, **rope.settings}
    kept = {k: v for k, v in document.items() if k not in NAMES}
    plain = rope.kind == "default"
    return {
        **kept,
        **part,
        **base,
        "rope_parameters": {**base, **scaling, **part},
        "rope_scaling": None if plain else scaling,
    }


def _nested_for_both(document: dict[str, Any], where: str) -> dict[str, Any]:
    """Gemma 3 in version 5's words, with those of 4.57 beside them."""
    by_type: dict[str, Any] = document["rope_parameters"]
    if set(by_type) != {SLIDING, FULL}:
        raise SdrrlError(
            f"{where}: rope_parameters has settings for {', '.join(map(str, by_type))}, which only transformers 5 reads"
        )
    local, whole = (rope_of({"rope_parameters": by_type[name]}, where) for name in (SLIDING, FULL))
    if local.kind != "default" or local.theta is None or whole.theta is None:
        raise SdrrlError(f"{where}: rope_parameters of sliding layers are scaled or without a base, only 5 reads them")
    scaling = None if whole.kind == "default" else {"rope_type": whole.kind, **whole.settings}
    return {
        **document,
        "rope_theta": whole.theta,
        "rope_scaling": scaling,
        "rope_local_base_freq": local.theta,
    }


def _mapping(value: Any, name: str, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise SdrrlError(f"{where}: {name} must be an object or null, is {value!r}")
    return value or {}


def _number(key: str, places: Mapping[str, Mapping[str, Any]], where: str) -> float | None:
    """The one value of ``key`` in all ``places``; None where it is in none of them or null."""
    found = {name: place[key] for name, place in places.items() if place.get(key) is not None}
    for name, value in found.items():
        if not is_number(value) or value <= 0:
            inside = "" if name == key else f" in {name}"
            raise SdrrlError(f"{where}: {key}{inside} must be a number above 0, is {value!r}")
    if len({float(v) for v in found.values()}) > 1:
        told = ", ".join(f"{value} in {'the file' if name == key else name}" for name, value in found.items())
        raise SdrrlError(f"{where}: {key} is {told}; keep the one that the model was trained with")
    return float(next(iter(found.values()))) if found else None


def is_number(value: Any) -> bool:
    """A finite number that a float can hold: JSON's whole numbers have no largest one."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= LARGEST


def _scaling(section: Mapping[str, Any], name: str, where: str) -> tuple[str, dict[str, Any]]:
    """(type, its settings without null) of one of the two sections."""
    kinds = {section[k] for k in ("rope_type", "type") if isinstance(section.get(k), str)}
    if len(kinds) > 1 or any(not isinstance(section[k], str) for k in ("rope_type", "type") if section.get(k)):
        raise SdrrlError(f"{where}: rope_type and type of {name} are not one word")
    skipped = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
    return next(iter(kinds), "default"), {k: v for k, v in section.items() if k not in skipped and v is not None}
