"""What the filters, language identification and the estimator make of a hand-judged set of translations.

Every judge works under the configuration of its pair of languages, as in preprocessing, but on every pair: what one
judge rejects is shown to the others all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdrrl_nemo.common.fileio import canonical_json
from sdrrl_nemo.common.registry import Registry
from sdrrl_nemo.data.config import EngineConfig, Pair, PreprocessConfig
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS, QUALITY_ESTIMATORS
from sdrrl_nemo.data.filters import TextPair, make_filters
from sdrrl_nemo.data.pairs import for_pair
from sdrrl_nemo.data.stages.judge import LanguageId
from sdrrl_nemo.data.studies.judged_pairs import JudgedPair
from sdrrl_nemo.data.studies.rejections import Verdicts


class PairsStudy:
    """A judged set and the configuration whose judges look at it; an engine is built once, when it is first asked."""

    def __init__(self, config: PreprocessConfig, pairs: Sequence[JudgedPair]) -> None:
        self.pairs = list(pairs)
        self.places: dict[Pair, list[int]] = {}
        for index, judged in enumerate(self.pairs):
            self.places.setdefault(judged.pair, []).append(index)
        self.configs = {pair: for_pair(config, pair) for pair in self.places}
        self._built: dict[str, Any] = {}

    def _engine(self, registry: Registry[Any], chosen: EngineConfig) -> Any:
        mark = canonical_json([registry.kind, chosen.name, chosen.options])
        if mark not in self._built:
            self._built[mark] = registry.create(chosen.name, **chosen.options)
        return self._built[mark]

    def texts(self, pair: Pair) -> list[TextPair]:
        """The texts of one pair of languages, in the order of the set."""
        return [self.pairs[i].text for i in self.places[pair]]

    def filters(self, changed: tuple[str, str, float] | None = None) -> dict[str, Verdicts]:
        """Filter -> its verdicts on all pairs, each filter by itself; ``changed`` = (filter, option, value): that one
        alone, with the option changed, where the configuration has it."""
        out: dict[str, list[str | None]] = {}
        for pair, where in self.places.items():
            chosen = [(f.name, dict(f.options)) for f in self.configs[pair].filters]
            if changed:
                name, option, value = changed
                chosen = [(f, {**options, option: value}) for f, options in chosen if f == name]
            for name, judge in make_filters(chosen).items():
                verdicts = out.setdefault(name, [None] * len(self.pairs))
                for index in where:
                    verdicts[index] = judge.reject(self.pairs[index].text)
        return dict(out)

    def identifier(self, name: str | None = None, bounds: tuple[int, float] | None = None) -> Verdicts:
        """Verdicts of the language identifier ``name`` (None: the configured one) under ``bounds`` (letters,
        probability; None: the configured ones)."""
        out: list[str | None] = [None] * len(self.pairs)
        for pair, where in self.places.items():
            own = self.configs[pair].language_id
            chosen = own.engine if name in (None, own.engine.name) else EngineConfig(name=name or "")
            engine = self._engine(LANGUAGE_IDENTIFIERS, chosen)
            least = bounds or (own.min_letters, own.min_probability)
            stage = LanguageId("language-id", engine, {}, pair[1], least, len(where))
            for index, verdict in zip(where, stage.judge(self.texts(pair)), strict=True):
                out[index] = verdict.rejection.detail if verdict.rejection else None
        return out

    def scores(self) -> dict[int, float]:
        """Place -> the estimator's score, for the pairs of languages that it is a judge of."""
        found: dict[int, float] = {}
        for pair, where in self.places.items():
            engine = self._engine(QUALITY_ESTIMATORS, self.configs[pair].quality.engine)
            if engine.languages is None or engine.languages.issuperset(pair):
                texts = self.texts(pair)
                scores = engine.score([t.source for t in texts], [t.target for t in texts])
                found.update(zip(where, scores, strict=True))
        return dict(sorted(found.items()))

    def below(self, scores: Mapping[int, float], tau: float | None = None) -> Verdicts:
        """Verdicts of the estimator at ``tau`` (None: the configured one); None where there is no score."""
        out: list[str | None] = [None] * len(self.pairs)
        for index, score in scores.items():
            least = self.configs[self.pairs[index].pair].quality.tau if tau is None else tau
            out[index] = f"{score:.4f} < {least:g}" if score < least else None
        return out

    def identities(self) -> list[str]:
        """Name and version of every engine that was asked."""
        return sorted(engine.identity for engine in self._built.values())
