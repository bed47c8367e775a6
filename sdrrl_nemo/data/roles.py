"""The engines of one run by role: built from the configuration, listed with their licences."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import sdrrl_nemo.data.engines  # noqa: F401  registers the embedded backends
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.registry import Registry
from sdrrl_nemo.data.config import EngineConfig, PreprocessConfig
from sdrrl_nemo.data.engines.base import (
    DICTIONARIES,
    GENERATORS,
    LANGUAGE_IDENTIFIERS,
    PARALLEL_CORPORA,
    QUALITY_ESTIMATORS,
    TRANSLATORS,
    Dictionary,
    Engine,
    Generator,
    LanguageIdentifier,
    ParallelCorpus,
    QualityEstimator,
    Translator,
)
from sdrrl_nemo.data.filters import Filter, make_filters

ROLES: dict[str, tuple[str, Registry[Any]]] = {
    "generator": ("generation.engine", GENERATORS),
    "translator": ("translation", TRANSLATORS),
    "quality": ("quality.engine", QUALITY_ESTIMATORS),
    "language_id": ("language_id.engine", LANGUAGE_IDENTIFIERS),
    "dictionary": ("code_switch.dictionary", DICTIONARIES),
    "corpus": ("parallel.engine", PARALLEL_CORPORA),
}
"""Role -> (its key in the YAML, where its backends are registered)."""


@dataclass(frozen=True)
class Engines:
    """One engine per role, and the filters."""

    generator: Generator
    translator: Translator
    quality: QualityEstimator
    language_id: LanguageIdentifier
    dictionary: Dictionary
    corpus: ParallelCorpus
    answer_filters: dict[str, Filter]
    filters: dict[str, Filter]

    def table(self, config: PreprocessConfig) -> list[dict[str, str]]:
        """``{"role", "name", "identity", "licence"}`` per engine."""
        rows = []
        for role in ROLES:
            engine: Engine = getattr(self, role)
            name = engine_config(config, role).name
            rows.append({"role": role, "name": name, "identity": engine.identity, "licence": engine.licence})
        return rows


def engine_config(config: PreprocessConfig, role: str) -> EngineConfig:
    """The YAML section of a role."""
    section: Any = config
    for part in ROLES[role][0].split("."):
        section = getattr(section, part)
    return section  # type: ignore[no-any-return]


def build(config: PreprocessConfig) -> Engines:
    """All engines and filters; SdrrlError names the YAML key of an unknown backend or option."""
    parts: dict[str, Any] = {}
    for role, (key, registry) in ROLES.items():
        chosen = engine_config(config, role)
        try:
            registry.factory(chosen.name)  # every name first: nothing is loaded for a run that cannot start
        except SdrrlError as e:
            raise SdrrlError(f"{key}.name: {e}") from None
    for role, (key, registry) in ROLES.items():
        chosen = engine_config(config, role)
        try:
            parts[role] = registry.create(chosen.name, **chosen.options)
        except SdrrlError as e:
            raise SdrrlError(f"{key}: {e}") from None
        except TypeError as e:
            raise SdrrlError(f"{key}: backend '{chosen.name}' cannot be built from its options ({e})") from None
    return Engines(
        **parts,
        answer_filters=make_filters([(f.name, f.options) for f in config.generation.filters]),
        filters=make_filters([(f.name, f.options) for f in config.filters]),
    )


def plain(chosen: EngineConfig) -> dict[str, Any]:
    """An engine's section as plain data, for fingerprints."""
    return dataclasses.asdict(chosen)
