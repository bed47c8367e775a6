"""COMET wmt22-comet-da (Rei et al. 2022) with references, in COMET's own environment (``make comet-env``)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.quality.comet import CometScorer
from sdrrl_nemo.data.engines.quality.scoring_process import PYTHON, Segment

NAME = "COMET wmt22-comet-da"


class Scores(Protocol):
    """What scores segments; CometScorer is one."""

    def score(self, segments: Sequence[Segment]) -> list[float]: ...


def open_scorer(
    model: str, encoder: str = "", python: str = PYTHON, device: str = "cpu", precision: str = "fp32",
    batch_size: int = 32,
) -> CometScorer:  # fmt: skip
    """A worker with the checkpoint folder ``model``; it starts with the first segments. Close it after use."""
    return CometScorer(
        model, encoder, python, device, precision, batch_size, reference=True, name=NAME, docs="docs/scorers.md"
    )


def make_segments(sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> list[Segment]:
    """Rows {"src", "mt", "ref"} in order."""
    if not len(sources) == len(hypotheses) == len(references):
        raise SdrrlError(
            f"COMET: {len(sources)} sources, {len(hypotheses)} translations and {len(references)} references; "
            "score the same ones"
        )
    return [
        {"src": s, "mt": h, "ref": r} for s, h, r in zip(sources, hypotheses, references, strict=True)
    ]  # fmt: skip


def score_batches(scorer: Scores, segments: Sequence[Segment], done: int = 0, send: int = 512) -> Iterator[list[float]]:
    """Scores of ``segments[done:]``, ``send`` at a time, each yielded as soon as it is known: a caller that stores them
    goes on where it stopped by the number it has stored. No score depends on ``send``."""
    if send < 1 or not 0 <= done <= len(segments):
        raise SdrrlError(f"COMET: {done} of {len(segments)} segments done, {send} at a time; give numbers that fit")
    for begin in range(done, len(segments), send):
        yield scorer.score(segments[begin : begin + send])


def score_item(scorer: Scores, source: str, hypothesis: str, reference: str) -> float:
    """Score of one translation, about 0 to 1, rounded to 6 digits."""
    return scorer.score(make_segments([source], [hypothesis], [reference]))[0]


def corpus_score(scores: Sequence[float]) -> float:
    """COMET's system score, the mean of its segments, times 100 as the paper prints it; NaN of nothing."""
    return 100.0 * math.fsum(scores) / len(scores) if scores else math.nan
