"""What the estimators in an environment of their own share: a text is scored by its corresponding sentences."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from sdrrl_nemo.data.engines.base import Assessment, Languages, QualityEstimator
from sdrrl_nemo.data.engines.quality.scoring_process import ScoringProcess
from sdrrl_nemo.data.engines.quality.segment_pairs import (
    Segments,
    assessment,
    fitting,
    require_aggregate,
    segment_pairs,
)
from sdrrl_nemo.data.text import segmentation

REVISION = 2
"""Changes whenever the code here may give another score of the same texts."""


class SegmentEstimator(QualityEstimator):
    """A text's score is the mean of its segments' (segment_pairs.py) weighted by source length, or with ``aggregate:
    min`` the worst of them. Segments that the model would cut are halved until they fit."""

    name: ClassVar[str]
    most_tokens: ClassVar[int]
    """Of source and translation together; what is longer the model would cut."""

    def __init__(self, scorer: ScoringProcess, aggregate: str) -> None:
        require_aggregate(self.name, aggregate)
        self._aggregate, self._scorer = aggregate, scorer

    @abstractmethod
    def most_tokens_of(self, pair: Segments) -> int:
        """A bound on a pair's tokens that needs no tokenizer."""

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """Precision, and how texts become segments and their scores one; batch size and device do not count."""
        how = f"r{REVISION}/{self._aggregate}/protected-{segmentation.REVISION}"
        return f"{self.name}/{how}/{self._scorer.options['precision']}"

    def files(self, *languages: str) -> Iterable[Path]:
        return self._scorer.files()

    def check(self, *languages: str) -> None:
        """Whether the model and its environment are there."""
        self._scorer.check()

    def try_out(self) -> None:
        """Scores one pair and ends the worker: the stage starts its own, where it works."""
        super().try_out()
        self._scorer.close()

    def score(self, sources: Sequence[str], translations: Sequence[str]) -> list[float]:
        return [found.score for found in self.assess(sources, translations, ("eng", "eng"))]

    def assess(self, sources: Sequence[str], translations: Sequence[str], languages: Languages) -> list[Assessment]:
        texts = list(zip(sources, translations, strict=True))
        cut = [fitting(segment_pairs(s, t, languages), self._too_long) for s, t in texts]
        asked = list(dict.fromkeys(pair for parts in cut for pair in parts))
        scores = dict(zip(asked, self._scorer.score([{"src": s, "mt": t} for s, t in asked]), strict=True))
        return [assessment(parts, [scores[pair] for pair in parts], self._aggregate) for parts in cut]

    def _too_long(self, pairs: Sequence[Segments]) -> list[bool]:
        """Which pairs the model would cut; the worker is asked where their characters leave it open."""
        open_ = [pair for pair in pairs if self.most_tokens_of(pair) > self.most_tokens]
        lengths = self._scorer.lengths([{"src": s, "mt": t} for s, t in open_])
        long = {pair for pair, length in zip(open_, lengths, strict=True) if length > self.most_tokens}
        return [pair in long for pair in pairs]
