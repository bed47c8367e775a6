"""YAML + dotted overrides -> typed dataclass (OmegaConf), with one-sentence errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdrrl_nemo.common.errors import SdrrlError, suggest

C = TypeVar("C")


def _keys(node: Any, prefix: str = "") -> list[str]:
    """Every dotted key of a config as plain values, inner ones included."""
    out: list[str] = []
    if isinstance(node, dict):
        for k, value in node.items():
            full = f"{prefix}{k!s}"
            out += [full, *_keys(value, full + ".")]
    return out


def _explain(e: OmegaConfBaseException, where: str, schema: DictConfig) -> SdrrlError:
    key = e.full_key or str(e.key or "")
    first = str(e).splitlines()[0]
    if "not in" in first or "not found" in first.lower() or "Key" in first:
        return SdrrlError(f"{where}: unknown key '{key}'{suggest(key, _keys(OmegaConf.to_container(schema)))}")
    return SdrrlError(f"{where}: key '{key}': {first}")


def load_config(schema: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """Merge ``path`` (YAML; key ``base:`` names a parent file beside it) and ``a.b=c`` overrides into ``schema``.

    Raises SdrrlError for a missing file, broken YAML, an unknown key (nearest suggested) or a wrong type.
    """
    base = OmegaConf.structured(schema)
    merged = base
    for layer_path, layer in _layers(Path(path)):
        merged = _merge(merged, layer, str(layer_path), base)
    for text in overrides:
        if "=" not in text:
            raise SdrrlError(f"override '{text}' is not of the form key=value")
        merged = _merge(merged, OmegaConf.from_dotlist([text]), f"override '{text}'", base)
    try:
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as e:
        missing = sorted(OmegaConf.missing_keys(merged))
        what = f"missing required key '{missing[0]}'" if missing else str(e).splitlines()[0]
        raise SdrrlError(f"{path}: {what}") from None


def read_key(path: str | Path, key: str) -> Any:
    """The value of one dotted key of a YAML file, whatever schema it has; SdrrlError where the file lacks it."""
    merged = OmegaConf.merge(*(layer for _, layer in _layers(Path(path))))
    value = OmegaConf.select(merged, key)
    if value is None:
        raise SdrrlError(f"{path}: the key '{key}' is missing")
    return value


def _layers(path: Path) -> list[tuple[Path, Any]]:
    if not path.is_file():
        raise SdrrlError(f"{path}: no such configuration file")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise SdrrlError(f"{path}: not valid YAML ({' '.join(str(e).split())})") from None
    if not isinstance(data, dict):
        raise SdrrlError(f"{path}: expected a mapping of keys at the top level")
    parent = data.pop("base", None)
    layers = _layers(path.parent / parent) if parent else []
    return [*layers, (path, OmegaConf.create(data))]


def _merge(base: Any, layer: Any, where: str, schema: DictConfig) -> Any:
    try:
        return OmegaConf.merge(base, layer)
    except OmegaConfBaseException as e:
        raise _explain(e, where, schema) from None


def override(config: C, changes: dict[str, Any], where: str) -> C:
    """A copy of ``config`` (a dataclass) with ``changes`` merged in; SdrrlError names ``where`` and the key."""
    base = OmegaConf.structured(config)
    merged = _merge(base, OmegaConf.create(changes), where, base)
    return OmegaConf.to_object(merged)  # type: ignore[return-value]


def to_yaml(config: Any) -> str:
    """The resolved configuration as YAML text, as runs keep beside their results."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))
