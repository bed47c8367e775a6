"""The stages that reject translations: by estimated quality, by filters, by language (section 3.2.2)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sdrrl_nemo.data.config import EngineConfig, Pair
from sdrrl_nemo.data.engines.base import LanguageIdentifier, QualityEstimator
from sdrrl_nemo.data.execution.stage_runner import Outcome, Row, Stage
from sdrrl_nemo.data.filters import Filter, TextPair
from sdrrl_nemo.data.stages.translate import COMPONENTS
from sdrrl_nemo.data.text import words

Verdict = tuple[str, str] | None
"""(reason, detail) of a rejection."""


class Judge(Stage):
    """Base of the stages that reject translations.

    A rejected translation becomes None and its row stays: a bad answer costs LT and TT, a bad question TL and TT, and
    LL needs no translation at all.
    """

    source: str
    target: str

    @abstractmethod
    def judge(self, pairs: list[TextPair]) -> list[tuple[Verdict, Row]]:
        """Per pair its verdict, and fields to remember in the row under ``<component>_<field>``."""

    def process(self, rows: list[Row]) -> Outcome:
        live = [(i, c) for i, row in enumerate(rows) for c in COMPONENTS if row[f"{c}_target"] is not None]
        pairs = [TextPair(rows[i][c], rows[i][f"{c}_target"], self.source, self.target) for i, c in live]
        out = [dict(row) for row in rows]
        rejects: list[Row] = []
        for (i, c), pair, (verdict, fields) in zip(live, pairs, self.judge(pairs) if pairs else [], strict=True):
            out[i].update({f"{c}_{name}": value for name, value in fields.items()})
            if verdict is None:
                continue
            out[i][f"{c}_target"] = None
            reason, detail = verdict
            about = {"key": rows[i]["key"], "component": c, "source": pair.source, "target": pair.target}
            rejects.append({**about, "reason": reason, "detail": detail})
        return Outcome(out, len(live), len(live) - len(rejects), rejects)


class Quality(Judge):
    """Rejects translations whose estimated quality is below tau (section 3.2.2)."""

    def __init__(self, name: str, engine: QualityEstimator, options: Any, tau: float, shard_size: int) -> None:
        self.name, self.engine, self.options, self.tau, self.shard_size = name, engine, options, tau, shard_size
        self.source = self.target = ""

    def settings(self) -> Any:
        return {"engine": self.engine.identity, "options": self.options, "tau": self.tau}

    def judge(self, pairs: list[TextPair]) -> list[tuple[Verdict, Row]]:
        scores = self.engine.score([p.source for p in pairs], [p.target for p in pairs])
        return [
            (None if score >= self.tau else ("below tau", f"{score:.4f} < {self.tau}"), {"quality": round(score, 4)})
            for score in map(float, scores)
        ]


class Heuristics(Judge):
    """Rejects translations by the configured filters; the first that says no gives the reason."""

    def __init__(
        self,
        name: str,
        chosen: Sequence[EngineConfig],
        filters: Mapping[str, Filter],
        pair: Pair,
        shard_size: int,
    ) -> None:
        self.name, self.chosen, self.filters, self.shard_size = name, chosen, filters, shard_size
        self.source, self.target = pair

    def settings(self) -> Any:
        versions = [f.version for f in self.filters.values()]
        chosen = [asdict(c) for c in self.chosen]
        return {"filters": chosen, "versions": versions, "pair": [self.source, self.target], "words": words.identity()}

    def judge(self, pairs: list[TextPair]) -> list[tuple[Verdict, Row]]:
        return [(self._first(pair), {}) for pair in pairs]

    def _first(self, pair: TextPair) -> Verdict:
        for name, judge in self.filters.items():
            detail = judge.reject(pair)
            if detail:
                return name, detail
        return None


class LanguageId(Judge):
    """Rejects translations that are off-target: identified as another language than the target (section 4.1)."""

    def __init__(
        self,
        name: str,
        engine: LanguageIdentifier,
        options: Any,
        target: str,
        bounds: tuple[int, float],
        shard_size: int,
    ) -> None:
        self.name, self.engine, self.options, self.shard_size = name, engine, options, shard_size
        self.source, self.target = "", target
        self.min_letters, self.min_probability = bounds

    def settings(self) -> Any:
        bounds = [self.min_letters, self.min_probability]
        return {"engine": self.engine.identity, "options": self.options, "target": self.target, "bounds": bounds}

    def judge(self, pairs: list[TextPair]) -> list[tuple[Verdict, Row]]:
        return [(self._verdict(p, *found), {}) for p, found in zip(pairs, self._identify(pairs), strict=True)]

    def _identify(self, pairs: list[TextPair]) -> list[tuple[str | None, float]]:
        return self.engine.identify([p.target for p in pairs])

    def _verdict(self, pair: TextPair, code: str | None, probability: float) -> Verdict:
        if code == self.target or sum(map(str.isalpha, pair.target)) < self.min_letters:
            return None
        if probability < self.min_probability:
            return None
        return "off-target", f"identified as {code or 'another language'} ({probability:.2f})"
