"""The language pairs of a run, and the configuration that holds for one source language or one pair."""

from __future__ import annotations

import dataclasses
from fnmatch import fnmatchcase
from typing import Any

from sdrrl_nemo.common.config import override
from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.config import BY_LANGUAGE, BY_PAIR, EngineConfig, Pair, PreprocessConfig
from sdrrl_nemo.data.text.languages import language


def pair_name(pair: Pair) -> str:
    """``eng-por``: how files, subsets and ``by_pair`` name a pair."""
    return f"{pair[0]}-{pair[1]}"


def language_pairs(config: PreprocessConfig) -> tuple[Pair, ...]:
    """The pairs of the run in order; SdrrlError for an unknown language, a repetition, or no pair at all."""
    if config.pairs and config.target_languages:
        raise SdrrlError("pairs and target_languages are both set; give one of them")
    if not config.pairs and not config.target_languages:
        raise SdrrlError("missing required key 'target_languages' (or 'pairs')")
    for given in config.pairs:
        if len(given) != 2:
            raise SdrrlError(f"pairs: {list(given)} is not [source language, target language]")
    product = [(s, t) for s in config.source_languages for t in config.target_languages]
    pairs = [(s, t) for s, t in config.pairs] or product
    key = "pairs" if config.pairs else "target_languages"
    for source, target in pairs:
        language(source)
        language(target)
        if source == target:
            raise SdrrlError(f"{key}: '{target}' is the source language too")
        if pairs.count((source, target)) > 1:
            raise SdrrlError(f"{key}: {pair_name((source, target))} is named twice")
    if not pairs:
        raise SdrrlError("source_languages: the list is empty; name at least one language")
    return tuple(pairs)


def sources_of(pairs: tuple[Pair, ...]) -> tuple[str, ...]:
    """The source languages of ``pairs``, each once, in order."""
    return tuple(dict.fromkeys(source for source, _ in pairs))


def for_language(config: PreprocessConfig, source: str) -> PreprocessConfig:
    """The configuration with the changes of ``by_language`` for one source language."""
    patch = config.by_language.get(source)
    return _changed(config, patch, f"by_language.{source}", BY_LANGUAGE) if patch else config


def for_pair(config: PreprocessConfig, pair: Pair) -> PreprocessConfig:
    """The configuration for one pair: changes by source language first, then by pair, in the order of the YAML."""
    config = for_language(config, pair[0])
    for pattern, patch in config.by_pair.items():
        if fnmatchcase(pair_name(pair), pattern):
            config = _changed(config, patch, f"by_pair.{pattern}", BY_PAIR)
    return config


def _changed(config: PreprocessConfig, patch: Any, where: str, sections: tuple[str, ...]) -> PreprocessConfig:
    if not isinstance(patch, dict):
        raise SdrrlError(f"{where}: expected a mapping of sections ({', '.join(sections)})")
    for key in patch:
        if key not in sections:
            raise SdrrlError(f"{where}: section '{key}' cannot be changed here{suggest(str(key), sections)}")
    # section by section: OmegaConf takes ten times as long over the whole configuration, for every pair again
    rest, changes = {}, {}
    for key, value in patch.items():
        section = getattr(config, key)
        if isinstance(value, dict) and dataclasses.is_dataclass(section):
            changes[key] = override(_without_old_options(section, value), value, f"{where}.{key}")
        else:
            rest[key] = value
    changed = dataclasses.replace(config, **changes)
    return override(changed, rest, where) if rest else changed


def _without_old_options(section: Any, patch: dict[str, Any]) -> Any:
    """A copy of ``section`` where every engine that ``patch`` renames has lost its options: they were another's."""
    changes: dict[str, Any] = {}
    for key, value in patch.items():
        inner = getattr(section, key, None)
        if isinstance(value, dict) and dataclasses.is_dataclass(inner):
            if isinstance(inner, EngineConfig) and value.get("name", inner.name) != inner.name:
                inner = dataclasses.replace(inner, options={})
            changes[key] = _without_old_options(inner, value)
    return dataclasses.replace(section, **changes)
