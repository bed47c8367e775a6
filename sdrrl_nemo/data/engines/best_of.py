"""Best-of-N translation: of several translations of a text, the one that the quality estimator scores highest.

Choosing among a beam's hypotheses by a quality estimator is the N-best reranking of Fernandes et al. 2022
("Quality-Aware Decoding for Neural Machine Translation"). The translator gives its candidates in its own order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import QualityEstimator, Translator, fingerprint_of

REVISION = 1
"""Changes whenever the code here may choose another candidate."""
ABLE = ("nllb_ctranslate2", "nllb_hf")
"""Engines that can give several translations of a text."""


class BestOfTranslator(Translator):
    """Asks ``translator`` for ``count`` candidates a text and keeps the one that ``estimator`` scores highest.

    Ties go to the candidate that the translator put first. An unfinished candidate ('') is never chosen over a finished
    one; a text without a finished one is ''. ``reranked`` counts the texts whose first candidate was not the one kept.
    SdrrlError where the translator cannot give that many.
    """

    def __init__(self, translator: Translator, estimator: QualityEstimator, count: int, name: str) -> None:
        if translator.most_candidates == 1:
            raise SdrrlError(
                f"translation.candidates is {count}, but translator '{name}' gives one translation a text; take "
                f"{' or '.join(ABLE)}, or set it to 1"
            )
        if count > translator.most_candidates:
            raise SdrrlError(
                f"translation.candidates is {count}, but translator '{name}' searches with "
                f"{translator.most_candidates} beams; set translation.options.beams to {count} or more"
            )
        self._translator, self._estimator, self._count = translator, estimator, count

    @property
    def licence(self) -> str:  # type: ignore[override]
        """Licence of the translator inside; the estimator has a line of its own in every list of engines."""
        return self._translator.licence

    @property
    def noncommercial(self) -> bool:  # type: ignore[override]
        """As the translator inside says."""
        return self._translator.noncommercial

    @property
    def max_units(self) -> int | None:  # type: ignore[override]
        """As the translator inside says."""
        return self._translator.max_units

    @property
    def identity(self) -> str:
        judged = fingerprint_of(self._estimator)
        return f"best_of/r{REVISION}({self._count},{judged})/{self._translator.identity}"

    def files(self, *languages: str) -> Iterable[Path]:
        """The files of the translator and of the estimator."""
        return [*self._translator.files(*languages), *self._estimator.files()]

    def check(self, *languages: str) -> None:
        """What the translator checks; the estimator is one of the pair's engines and is checked as such."""
        self._translator.check(*languages)

    def try_out(self) -> None:
        """What the translator tries."""
        self._translator.try_out()

    def units(self, texts: Sequence[str], source: str) -> list[int]:
        return self._translator.units(texts, source)

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        found = self._translator.candidates(texts, source, target, self._count)
        finished = [list(dict.fromkeys(filter(None, candidates))) for candidates in found]
        scores = self._scores(texts, finished, (source, target))
        best = []
        for text, candidates, own in zip(texts, finished, scores, strict=True):
            # Of equal scores max() takes the first, which is the translator's own choice.
            best.append(candidates[max(range(len(own)), key=own.__getitem__)] if candidates else "")
            self.incomplete += bool(text.strip()) and not candidates
        self.reranked += sum(bool(kept) and kept != candidates[0] for kept, candidates in zip(best, found, strict=True))
        return best

    def _scores(
        self, texts: Sequence[str], candidates: Sequence[Sequence[str]], languages: tuple[str, str]
    ) -> list[list[float]]:
        """A score for each candidate; all in one call, and none is asked for where there is nothing to choose."""
        pairs = [
            (text, one) for text, several in zip(texts, candidates, strict=True) if len(several) > 1 for one in several
        ]
        asked = list(dict.fromkeys(pairs))
        judged = self._estimator.assess([s for s, _ in asked], [t for _, t in asked], languages) if asked else []
        score = {pair: found.score for pair, found in zip(asked, judged, strict=True)}
        return [
            [score.get((text, one), 0.0) for one in several] for text, several in zip(texts, candidates, strict=True)
        ]
