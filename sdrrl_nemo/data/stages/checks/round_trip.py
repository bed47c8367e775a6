"""Round trip: a translation is translated back, and what comes back is compared with the source (optional)."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from typing import Any

from sdrrl_nemo.common.optional import distribution_version, require
from sdrrl_nemo.data.config import Pair, RoundTripConfig
from sdrrl_nemo.data.engines.base import Translator, fingerprint_of
from sdrrl_nemo.data.filters import TextPair
from sdrrl_nemo.data.filters.base import prose
from sdrrl_nemo.data.stages.judge import Judge, Rejection, Verdict, letters
from sdrrl_nemo.data.text import segmentation

CHRF_PACKAGE = ("sacrebleu", "eval")
"""(distribution, the extra of this project that installs it)."""


class RoundTrip(Judge):
    """Rejects translations whose back translation is too unlike their source, by sentence chrF (Popović 2015).

    Compared is what stands between code, formulas, addresses and the like: they come back unchanged from any
    translation. A source with fewer than ``min_letters`` letters there stays.
    """

    def __init__(self, name: str, engine: Translator, section: RoundTripConfig, pair: Pair, shard_size: int) -> None:
        self.name, self.engine, self.section, self.shard_size = name, engine, section, shard_size
        self.source, self.target = pair

    def settings(self) -> Any:
        return {
            "engine": fingerprint_of(self.engine, self.target, self.source),
            "options": asdict(self.section),
            "pair": [self.source, self.target],
            "chrf": distribution_version(*CHRF_PACKAGE),
            "protected": segmentation.REVISION,
        }

    @cached_property
    def _chrf(self) -> Any:
        return require("sacrebleu.metrics", *CHRF_PACKAGE).CHRF()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_chrf"}

    def judge(self, pairs: list[TextPair]) -> list[Verdict]:
        asked = [pair for pair in pairs if letters(pair.source_prose) >= self.section.min_letters]
        texts = list(dict.fromkeys(pair.target for pair in asked))
        back = dict(zip(texts, self.engine.translate(texts, self.target, self.source), strict=True)) if texts else {}
        rejected = {pair: self._rejection(pair.source_prose, back[pair.target]) for pair in asked}
        return [Verdict(rejected.get(pair)) for pair in pairs]

    def _rejection(self, source: str, back: str) -> Rejection | None:
        if not back.strip():
            return Rejection("round trip", "the back translation did not end")
        score = self._chrf.sentence_score(prose(back), [source]).score / 100
        if score >= self.section.minimum:
            return None
        said = " ".join(back.split())[:200]
        return Rejection("round trip", f"chrF {score:.4f} < {self.section.minimum}; came back as: {said}")
