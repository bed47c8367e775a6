"""YAML + dotted overrides -> typed dataclass (OmegaConf), with one-sentence errors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import readable

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
        _require_text(text, "override")
        if "=" not in text:
            raise SdrrlError(f"override '{text}' is not of the form key=value")
        merged = _merge(merged, partial(OmegaConf.from_dotlist, [text]), f"override '{text}'", base)
    return _object(merged, str(path))  # type: ignore[no-any-return]


def read_key(path: str | Path, key: str) -> Any:
    """The value of one dotted key of a YAML file, whatever schema it has; SdrrlError where the file lacks it."""
    merged: Any = OmegaConf.create({})
    for layer_path, layer in _layers(Path(path)):
        merged = _merge(merged, layer, str(layer_path), merged)
    value = OmegaConf.select(merged, key)
    if value is None:
        raise SdrrlError(f"{path}: the key '{key}' is missing")
    return value


def _object(merged: Any, where: str) -> Any:
    try:
        return OmegaConf.to_object(merged)
    except Exception as e:  # OmegaConf's own, and whatever an interpolation runs into (a loop is a RecursionError)
        missing: list[str] = []
        with contextlib.suppress(Exception):  # the same loop again
            missing = sorted(OmegaConf.missing_keys(merged))
        what = f"missing required key '{missing[0]}'" if missing else _first_line(e)
        raise SdrrlError(f"{where}: {what}") from None


def _first_line(e: Exception) -> str:
    return next(iter(str(e).splitlines()), "") or type(e).__name__


class PlainLoader(yaml.SafeLoader):
    """YAML's plain values; a date is the text that it is written as, and a key that a mapping has twice is an error:
    PyYAML would take the second and say nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The mapping with its keys in order; YAMLError names the lines of a key that stands in it twice."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)  # type: ignore[no-untyped-call]
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines:
                raise yaml.YAMLError(f"line {line}: the key '{key.value}' stands in line {lines[name]} already")
            lines[name] = line
        return node


PlainLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _require_text(node: Any, where: str) -> None:
    """SdrrlError for a key or value that no file name and no text can have: half a surrogate pair, a NUL."""
    todo: list[tuple[str, Any]] = [("", node)]
    seen: set[int] = set()  # a walk, not a recursion: YAML may nest deep, and hold itself
    while todo:
        key, value = todo.pop()
        if isinstance(value, str) and not _is_text(value):
            named = f"{key!a}: " if key else ""
            raise SdrrlError(f"{where}: {named}{value!a} is no text (half of a character, or a NUL)")
        if isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, dict):
                todo += [(key, str(name)) for name in value]
                todo += [(f"{key}.{name}" if key else str(name), inner) for name, inner in value.items()]
            else:
                todo += [(key, inner) for inner in value]


def _is_text(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def _layers(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[Path, Any]]:
    if path.resolve() in above:
        raise SdrrlError(f"{path}: is its own base, by way of {len(above)} files; mend the key 'base'")
    try:
        with readable(path):
            if not path.is_file():
                named = f"; {above[-1]} names it as its base" if above else ""
                raise SdrrlError(f"{path}: no such configuration file{named}")
            data = yaml.load(path.read_text(encoding="utf-8"), PlainLoader) or {}
    except SdrrlError:
        raise
    except Exception as e:  # YAMLError, and what PyYAML lets through: a day 99, '!!int x', too deep a nesting
        raise SdrrlError(f"{path}: not valid YAML ({' '.join(str(e).split()) or type(e).__name__})") from None
    if not isinstance(data, dict):
        raise SdrrlError(f"{path}: expected a mapping of keys at the top level")
    _require_text(data, str(path))
    parent = data.pop("base", None)
    if parent and not isinstance(parent, str):
        raise SdrrlError(f"{path}: base must be the name of a file, found {type(parent).__name__}")
    layers = _layers(path.parent / parent, (*above, path.resolve())) if parent else []
    return [*layers, (path, partial(OmegaConf.create, data))]


def _merge(base: Any, layer: Callable[[], Any], where: str, schema: DictConfig) -> Any:
    """``base`` with the keys that ``layer`` makes; SdrrlError names ``where``."""
    try:
        return OmegaConf.merge(base, layer())
    except OmegaConfBaseException as e:
        raise _explain(e, where, schema) from None
    except Exception as e:  # OmegaConf checks less than it merges: a list over a mapping, a document inside itself
        raise SdrrlError(f"{where}: cannot be taken over ({_first_line(e)})") from None


def override(config: C, changes: dict[str, Any], where: str) -> C:
    """A copy of ``config`` (a dataclass) with ``changes`` merged in; SdrrlError names ``where`` and the key."""
    base = OmegaConf.structured(config)
    merged = _merge(base, partial(OmegaConf.create, changes), where, base)
    return _object(merged, where)  # type: ignore[no-any-return]


def to_yaml(config: Any) -> str:
    """The resolved configuration as YAML text, as runs keep beside their results."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))
