"""The stages that reject translations: by estimated quality, by filters, by language (section 3.2.2)."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from sdrrl_nemo.data.config import EngineConfig, Pair
from sdrrl_nemo.data.conversations import Place, numbered, own_copy, places, set_target, target_at, text_at
from sdrrl_nemo.data.engines.base import Assessment, Identified, LanguageIdentifier, QualityEstimator, fingerprint_of
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.filters import Filter, TextPair
from sdrrl_nemo.data.rows import QUALITY, SEGMENTS, RejectRow, SegmentScores, TranslatedRow
from sdrrl_nemo.data.text import segmentation, words

DIGITS = 4
"""Decimals of the scores that rows remember."""


class Rejection(NamedTuple):
    """Why a translation is rejected; ``detail`` has the measured figure and its bound."""

    reason: str
    detail: str


class Verdict(NamedTuple):
    """What a judge says of one translation: why it is rejected, or None, and the estimate that its row remembers."""

    rejection: Rejection | None
    quality: Assessment | None = None
    note: str | None = None
    """What the statistics count besides."""


class Judge(Stage[TranslatedRow, TranslatedRow]):
    """Base of the stages that reject translations.

    A rejected translation becomes None and its row stays: a bad answer costs LT and TT, a bad question TL and TT, and
    LL needs no translation at all. Every turn of a conversation is judged by itself.
    """

    source: str
    target: str

    @abstractmethod
    def judge(self, pairs: list[TextPair]) -> list[Verdict]:
        """One verdict per pair."""

    def process(self, rows: list[TranslatedRow]) -> Outcome[TranslatedRow]:
        # What an earlier judge rejected is not asked about again: a rejection is counted once, with its first reason.
        live = [(i, p) for i, row in enumerate(rows) for p in places(row) if target_at(row, p) is not None]
        pairs = [TextPair(text_at(rows[i], p), target_at(rows[i], p) or "", self.source, self.target) for i, p in live]
        out = [own_copy(row) for row in rows]
        rejects: list[RejectRow] = []
        notes: Counter[str] = Counter()
        for (i, place), pair, verdict in zip(live, pairs, self.judge(pairs) if pairs else [], strict=True):
            if verdict.quality is not None:
                _remember(out[i], place, verdict.quality)
            if verdict.note is not None:
                notes[verdict.note] += 1
            if verdict.rejection is None:
                continue
            set_target(out[i], place, None)
            reason, detail = verdict.rejection
            about: RejectRow = {
                "key": rows[i]["key"],
                "component": place.component,
                "source": pair.source,
                "target": pair.target,
                "reason": reason,
                "detail": detail,
            }
            rejects.append({**about, **numbered(place)})  # type: ignore[typeddict-item]
        return Outcome(out, len(live), len(live) - len(rejects), rejects, notes=notes)


def _remember(row: TranslatedRow, place: Place, quality: Assessment) -> None:
    score = round(quality.score, DIGITS)
    parts: SegmentScores | None = None
    if quality.mean is not None and quality.minimum is not None:
        mean, least = round(quality.mean, DIGITS), round(quality.minimum, DIGITS)
        parts = {"mean": mean, "min": least, "segments": quality.segments}
    if place.turn is None:
        row[QUALITY[place.component]] = score
        if parts is not None:
            row[SEGMENTS[place.component]] = parts
        return
    earlier = row.setdefault("earlier_quality", [{} for _ in row["earlier"]])[place.turn]
    earlier[place.component] = score
    if parts is not None:
        earlier[SEGMENTS[place.component]] = parts


class Quality(Judge):
    """Rejects translations whose estimated quality is below tau (section 3.2.2)."""

    def __init__(
        self, name: str, engine: QualityEstimator, options: Any, tau: float, shard_size: int, pair: Pair
    ) -> None:
        self.name, self.engine, self.options, self.tau, self.shard_size = name, engine, options, tau, shard_size
        self.source, self.target = pair

    def settings(self) -> Any:
        return {"engine": fingerprint_of(self.engine), "options": self.options, "tau": self.tau}

    def judge(self, pairs: list[TextPair]) -> list[Verdict]:
        sources, targets = [p.source for p in pairs], [p.target for p in pairs]
        found = self.engine.assess(sources, targets, (self.source, self.target))
        return [Verdict(self._below_tau(quality.score), quality) for quality in found]

    def _below_tau(self, score: float) -> Rejection | None:
        return None if score >= self.tau else Rejection("below tau", f"{score:.4f} < {self.tau}")


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
        about = {"words": words.identity(), "protected": segmentation.REVISION}
        return {"filters": chosen, "versions": versions, "pair": [self.source, self.target], **about}

    def judge(self, pairs: list[TextPair]) -> list[Verdict]:
        return [Verdict(self._first(pair)) for pair in pairs]

    def _first(self, pair: TextPair) -> Rejection | None:
        for name, judge in self.filters.items():
            detail = judge.reject(pair)
            if detail:
                return Rejection(name, detail)
        return None


class LanguageId(Judge):
    """Rejects translations that are off-target: identified as another language than the target (section 4.1).

    Code, formulas, addresses and the like are of no language: what stands between them is identified. A translation
    with fewer than ``min_letters`` letters in its different words stays: "3 euros, 5 euros" says little of a language.
    """

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
        about = {
            "target": self.target,
            "bounds": bounds,
            "protected": segmentation.REVISION,
            "letters": "different words",
        }
        return {"engine": fingerprint_of(self.engine), "options": self.options, **about}

    def judge(self, pairs: list[TextPair]) -> list[Verdict]:
        identified = self.engine.identify([p.target_prose for p in pairs])
        return [Verdict(self._off_target(p, found)) for p, found in zip(pairs, identified, strict=True)]

    def _off_target(self, pair: TextPair, found: Identified) -> Rejection | None:
        code, probability = found
        if code == self.target or letters(pair.target_prose) < self.min_letters:
            return None
        if probability < self.min_probability:
            return None
        return Rejection("off-target", f"identified as {code or 'another language'} ({probability:.2f})")


def letters(text: str) -> int:
    """Letters of the different words: "3 euros, 5 euros" has five."""
    return sum(sum(map(str.isalpha, word)) for word in set(text.lower().split()))
