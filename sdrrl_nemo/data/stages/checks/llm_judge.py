"""A language model as judge: what it scores too low is rejected (optional)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sdrrl_nemo.data.config import LlmJudgeConfig, Pair
from sdrrl_nemo.data.engines.base import TranslationJudge, fingerprint_of
from sdrrl_nemo.data.filters import TextPair
from sdrrl_nemo.data.stages.judge import Judge, Rejection, Verdict

UNUSABLE = "replies without a usable score"
"""What the statistics count."""


class LlmJudge(Judge):
    """Rejects translations that the judge scores below ``minimum``; one without a usable score is kept or rejected as
    the section says, and counted either way."""

    def __init__(
        self, name: str, engine: TranslationJudge, section: LlmJudgeConfig, pair: Pair, shard_size: int
    ) -> None:
        self.name, self.engine, self.section, self.shard_size = name, engine, section, shard_size
        self.source, self.target = pair

    def settings(self) -> Any:
        return {
            "engine": fingerprint_of(self.engine),
            "options": asdict(self.section),
            "pair": [self.source, self.target],
        }

    def judge(self, pairs: list[TextPair]) -> list[Verdict]:
        asked = list(dict.fromkeys(pairs))
        scores = self.engine.rate([p.source for p in asked], [p.target for p in asked], (self.source, self.target))
        verdicts = {pair: self._verdict(score) for pair, score in zip(asked, scores, strict=True)}
        return [verdicts[pair] for pair in pairs]

    def _verdict(self, score: float | None) -> Verdict:
        if score is None:
            rejected = Rejection("no usable score", "the judge's reply") if self.section.unusable == "reject" else None
            return Verdict(rejected, note=UNUSABLE)
        low = score < self.section.minimum
        return Verdict(Rejection("LLM judge", f"{score:g} < {self.section.minimum:g}") if low else None)
