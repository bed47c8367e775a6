"""The engines of a run by role, source language and pair: built from the configuration, listed with licences."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import sdrrl_nemo.data.engines  # noqa: F401  registers the embedded backends
from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import canonical_json
from sdrrl_nemo.common.registry import Registry
from sdrrl_nemo.data.config import NO_CORPUS, NO_TRANSLATOR, EngineConfig, PreprocessConfig, TranslationConfig
from sdrrl_nemo.data.engines.base import (
    DICTIONARIES,
    GENERATORS,
    LANGUAGE_IDENTIFIERS,
    PARALLEL_CORPORA,
    QUALITY_ESTIMATORS,
    TRANSLATORS,
    Engine,
    QualityEstimator,
)
from sdrrl_nemo.data.engines.segmented_translator import SegmentedTranslator
from sdrrl_nemo.data.filters import Filter, make_filters
from sdrrl_nemo.data.methods import Plan, plan
from sdrrl_nemo.data.pairs import for_language, for_pair, pair_name, sources_of

ROLES: dict[str, tuple[str, Registry[Any]]] = {
    "generator": ("generation.engine", GENERATORS),
    "translator": ("translation", TRANSLATORS),
    "quality": ("quality.engine", QUALITY_ESTIMATORS),
    "language_id": ("language_id.engine", LANGUAGE_IDENTIFIERS),
    "dictionary": ("code_switch.dictionary", DICTIONARIES),
    "corpus": ("parallel.engine", PARALLEL_CORPORA),
}
"""Role -> (its key in the YAML, where its backends are registered)."""


class Engines:
    """The engines that a run uses, each built once however many pairs share it."""

    def __init__(self, config: PreprocessConfig) -> None:
        """Build everything the run needs; SdrrlError names the YAML key of an unknown backend or option."""
        self.config = config
        self._built: dict[str, Any] = {}
        self._uses: dict[str, tuple[str, EngineConfig, list[str]]] = {}
        wanted = _wanted(config, plan(config))
        for role, chosen, _ in wanted:
            _factory(role, chosen)  # every name first: nothing is loaded for a run that cannot start
        self._templates = dataclasses.asdict(config.templates)
        for role, chosen, scope in wanted:
            self._add(role, chosen, scope)

    def _add(self, role: str, chosen: EngineConfig, scope: str) -> None:
        mark = _mark(role, chosen)
        if mark not in self._built:
            self._built[mark] = _create(role, chosen, self._templates)
            self._uses[mark] = (role, chosen, [])
        if role == "quality":
            _require_languages(self._built[mark], chosen.name, scope)
        self._uses[mark][2].append(scope)

    def get(self, role: str, config: PreprocessConfig) -> Any:
        """The engine of ``role`` under ``config``, which is the configuration for one source language or pair."""
        return self._built[_mark(role, engine_config(config, role))]

    def table(self) -> list[dict[str, Any]]:
        """``{"role", "name", "identity", "licence", "noncommercial", "for"}`` per engine; ``for`` lists languages or
        pairs."""
        rows = []
        for mark, (role, chosen, scopes) in self._uses.items():
            engine: Engine = self._built[mark]
            about: dict[str, Any] = {"role": role, "name": chosen.name, "for": " ".join(scopes)}
            terms = {"licence": engine.licence, "noncommercial": engine.noncommercial}
            rows.append({**about, "identity": engine.identity, **terms})
        return sorted(rows, key=lambda row: list(ROLES).index(row["role"]))


def _wanted(config: PreprocessConfig, todo: Plan) -> list[tuple[str, EngineConfig, str]]:
    """(role, its section, what it serves): corpus, translator and its judges for every pair that has a translator,
    since the held-out sets need them whatever the method."""
    wanted = [
        ("generator", engine_config(for_language(config, source), "generator"), source)
        for source in sources_of(todo.pairs)
        if todo.asks_the_model(source)
    ]
    for pair, recipe in todo.recipes.items():
        own = for_pair(config, pair)
        needed = ["corpus"] if own.parallel.engine.name != NO_CORPUS else []
        if own.translation.name != NO_TRANSLATOR:
            needed += ["translator", "quality", "language_id"]
        if recipe.code_switch:
            needed.append("dictionary")
        wanted += [(role, engine_config(own, role), pair_name(pair)) for role in needed]
    return wanted


def _mark(role: str, chosen: EngineConfig) -> str:
    return canonical_json([role, plain(chosen)])


def _factory(role: str, chosen: EngineConfig) -> None:
    key, registry = ROLES[role]
    try:
        registry.factory(chosen.name)
    except SdrrlError as e:
        raise SdrrlError(f"{key}.name: {e}") from None


def _create(role: str, chosen: EngineConfig, templates: dict[str, Any]) -> Any:
    key, registry = ROLES[role]
    options = dict(chosen.options)
    if role == "generator" and "templates" in inspect.signature(registry.factory(chosen.name)).parameters:
        options.setdefault("templates", templates)  # y_hat is asked for as training renders it
    try:
        engine = registry.create(chosen.name, **options)
        if isinstance(chosen, TranslationConfig) and chosen.segment:
            return SegmentedTranslator(engine, **_segmentation(chosen))
        return engine
    except SdrrlError as e:
        raise SdrrlError(f"{key}: {e}") from None
    except (TypeError, ValueError, AttributeError) as e:
        raise SdrrlError(f"{key}: backend '{chosen.name}' cannot be built from its options ({e})") from None


def _require_languages(engine: QualityEstimator, name: str, pair: str) -> None:
    """SdrrlError when the estimator is no judge of one of the pair's languages: its scores would look like scores."""
    unserved = [code for code in pair.split("-") if engine.languages is not None and code not in engine.languages]
    if unserved:
        raise SdrrlError(
            f"quality.engine: '{name}' is no judge of {', '.join(unserved)} (pair {pair}); choose another estimator "
            "for this pair under by_pair, such as cometkiwi, or translation.name=none"
        )


def _segmentation(chosen: TranslationConfig) -> dict[str, Any]:
    known = [name for name in inspect.signature(SegmentedTranslator).parameters if name != "translator"]
    for name in chosen.segmentation:
        if name not in known:
            raise SdrrlError(f"segmentation has no option '{name}'{suggest(name, known)}")
    return chosen.segmentation


def engine_config(config: PreprocessConfig, role: str) -> EngineConfig:
    """The YAML section of a role."""
    section: Any = config
    for part in ROLES[role][0].split("."):
        section = getattr(section, part)
    return section  # type: ignore[no-any-return]


def filters_of(chosen: list[EngineConfig]) -> dict[str, Filter]:
    """The filters of one list of the configuration, in order."""
    return make_filters([(f.name, f.options) for f in chosen])


def plain(chosen: EngineConfig) -> dict[str, Any]:
    """An engine's section as plain data, for fingerprints."""
    return dataclasses.asdict(chosen)
