"""The engines of a run by role, source language and pair: built from the configuration, listed with licences."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import sdrrl_nemo.data.engines  # noqa: F401  registers the embedded backends
from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import canonical_json
from sdrrl_nemo.common.optional import distribution_version
from sdrrl_nemo.common.registry import Registry
from sdrrl_nemo.data.config import (
    NO_CORPUS,
    NO_TRANSLATOR,
    EngineConfig,
    PreprocessConfig,
    TranslationConfig,
    without_later,
)
from sdrrl_nemo.data.engines.base import (
    DICTIONARIES,
    GENERATORS,
    LANGUAGE_IDENTIFIERS,
    LLM_JUDGES,
    PARALLEL_CORPORA,
    QUALITY_ESTIMATORS,
    TRANSLATORS,
    Engine,
    QualityEstimator,
)
from sdrrl_nemo.data.engines.best_of import BestOfTranslator
from sdrrl_nemo.data.engines.contents import contents
from sdrrl_nemo.data.engines.segmented_translator import SegmentedTranslator
from sdrrl_nemo.data.filters import Filter, make_filters
from sdrrl_nemo.data.methods import Plan, plan
from sdrrl_nemo.data.pairs import for_language, for_pair, pair_name, sources_of
from sdrrl_nemo.data.stages.checks.round_trip import CHRF_PACKAGE

ROLES: dict[str, tuple[str, Registry[Any]]] = {
    "generator": ("generation.engine", GENERATORS),
    "translator": ("translation", TRANSLATORS),
    "quality": ("quality.engine", QUALITY_ESTIMATORS),
    "language_id": ("language_id.engine", LANGUAGE_IDENTIFIERS),
    "round_trip": ("round_trip.engine", TRANSLATORS),
    "llm_judge": ("llm_judge.engine", LLM_JUDGES),
    "dictionary": ("code_switch.dictionary", DICTIONARIES),
    "corpus": ("parallel.engine", PARALLEL_CORPORA),
}
"""Role -> (its key in the YAML, where its backends are registered)."""


class Problems:
    """What stands in the way of a run, one sentence each with the languages or pairs it holds for; each said once."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    @contextlib.contextmanager
    def caught(self, key: str, scope: str = "") -> Iterator[None]:
        """An SdrrlError within becomes a problem of the YAML ``key`` for ``scope``, and the caller goes on."""
        try:
            yield
        except SdrrlError as e:
            sentence = str(e) if str(e).startswith(key) else f"{key}: {e}"
            scopes = self._found.setdefault(sentence, [])
            if scope not in scopes:
                scopes.append(scope)

    def sentences(self) -> list[str]:
        """In the order found, with what each holds for."""
        named = {sentence: " ".join(filter(None, scopes)) for sentence, scopes in self._found.items()}
        return [f"{sentence} ({scopes})" if scopes else sentence for sentence, scopes in named.items()]


class Use(NamedTuple):
    """An engine as one source language or pair uses it: role, key in the YAML, its section there, the engine."""

    role: str
    key: str
    chosen: EngineConfig
    scope: str
    engine: Any
    ways: list[list[str]]
    """What the engine is asked to serve: both languages of a pair (for a dictionary perhaps in both directions), a
    generator's source, an identifier's target."""


class Engines:
    """The engines that a run uses, each built once however many pairs share it."""

    def __init__(self, config: PreprocessConfig, problems: Problems | None = None) -> None:
        """Build everything the run needs. An unknown backend or option is an SdrrlError that names the YAML key; with
        ``problems`` it is noted there, and the others are built."""
        self.config = config
        self.uses: list[Use] = []
        """Every engine for every language or pair that it serves, as far as it could be built."""
        self._built: dict[str, Any] = {}
        wanted = _wanted(config, plan(config))
        self._templates = dataclasses.asdict(config.templates)
        for role, chosen, _ in wanted:
            if problems is None:
                _factory(role, chosen)  # every name first: nothing is loaded for a run that cannot start
        for role, chosen, scope in wanted:
            key = ROLES[role][0]
            with contextlib.nullcontext() if problems is None else problems.caught(key, scope):
                engine = self._made(role, chosen, scope)
                self.uses.append(Use(role, key, chosen, scope, engine, _ways(config, role, scope)))

    def _made(self, role: str, chosen: EngineConfig, scope: str) -> Any:
        estimator = _estimator_of(role, self._own(scope))
        mark = _mark(role, chosen, estimator)
        if mark not in self._built:
            _factory(role, chosen)
            judge = self._made("quality", estimator, scope) if estimator else None
            self._built[mark] = _create(role, chosen, self._templates, judge)
        if role == "round_trip":
            distribution_version(*CHRF_PACKAGE)
        if role == "quality":
            _require_languages(self._built[mark], chosen.name, scope)
        return self._built[mark]

    def _own(self, scope: str) -> PreprocessConfig:
        """The configuration of a source language or pair."""
        codes = scope.split("-")
        return for_pair(self.config, (codes[0], codes[1])) if len(codes) == 2 else for_language(self.config, scope)

    def get(self, role: str, config: PreprocessConfig) -> Any:
        """The engine of ``role`` under ``config``, which is the configuration for one source language or pair."""
        return self._built[_mark(role, engine_config(config, role), _estimator_of(role, config))]

    def contents(self) -> dict[str, str]:
        """What the engines' files hold, role by role and pair by pair; engines without files are not named."""
        found = {}
        for use in self.uses:
            for way in use.ways:
                if files := list(use.engine.files(*way)):
                    found[f"{use.role}.{'-'.join(way)}"] = contents(files)
        return found

    def table(self) -> list[dict[str, Any]]:
        """``{"role", "name", "identity", "licence", "noncommercial", "for"}`` per engine; ``for`` lists languages or
        pairs; ``skipped`` is there where a dictionary left entries out."""
        uses: dict[tuple[str, int], list[Use]] = {}
        for use in self.uses:
            uses.setdefault((use.role, id(use.engine)), []).append(use)
        rows = []
        for same in uses.values():
            engine: Engine = same[0].engine
            about = {"role": same[0].role, "name": same[0].chosen.name, "for": " ".join(use.scope for use in same)}
            terms = {"licence": engine.licence, "noncommercial": engine.noncommercial}
            skipped = {file: n for file, n in getattr(engine, "skipped", {}).items() if n}
            rows.append({**about, "identity": engine.identity, **terms, **({"skipped": skipped} if skipped else {})})
        return sorted(rows, key=lambda row: list(ROLES).index(row["role"]))


def optional_checks(config: PreprocessConfig) -> list[str]:
    """Roles of the checks that a pair's translations go through only where an engine is named for them."""
    return [role for role in ("round_trip", "llm_judge") if engine_config(config, role).name]


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
            needed += ["translator", "quality", "language_id", *optional_checks(own)]
        if recipe.code_switch:
            needed.append("dictionary")
        wanted += [(role, engine_config(own, role), pair_name(pair)) for role in needed]
    return wanted


def _ways(config: PreprocessConfig, role: str, scope: str) -> list[list[str]]:
    """See Use."""
    codes = scope.split("-")
    if role == "language_id":
        return [codes[-1:]]
    if role == "round_trip":
        return [codes[::-1]]
    if role == "dictionary" and for_pair(config, (codes[0], codes[1])).code_switch.target_questions == "dictionary":
        return [codes, codes[::-1]]
    return [codes]


def _estimator_of(role: str, config: PreprocessConfig) -> EngineConfig | None:
    """The quality estimator that chooses among a translator's candidates, where there are several."""
    several = role == "translator" and config.translation.candidates > 1
    return config.quality.engine if several else None


def _mark(role: str, chosen: EngineConfig, estimator: EngineConfig | None) -> str:
    return canonical_json([role, plain(chosen), *([plain(estimator)] if estimator else [])])


def _factory(role: str, chosen: EngineConfig) -> None:
    key, registry = ROLES[role]
    try:
        registry.factory(chosen.name)
    except SdrrlError as e:
        raise SdrrlError(f"{key}.name: {e}") from None


def _create(
    role: str, chosen: EngineConfig, templates: dict[str, Any], estimator: QualityEstimator | None = None
) -> Any:
    key, registry = ROLES[role]
    options = dict(chosen.options)
    if role == "generator" and "templates" in inspect.signature(registry.factory(chosen.name)).parameters:
        options.setdefault("templates", templates)  # y_hat is asked for as training renders it
    try:
        engine = registry.create(chosen.name, **options)
        if isinstance(chosen, TranslationConfig) and estimator is not None:
            engine = BestOfTranslator(engine, estimator, chosen.candidates, chosen.name)
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
    return without_later(chosen)
