"""LL, TL, LT and TT: question and answer of a row, each in one of the two languages (section 3.2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

from sdrrl_nemo.common.seeding import named_random
from sdrrl_nemo.data.config import CrossLingualConfig, Pair
from sdrrl_nemo.data.conversations import Place, history, places, target_at, text_at
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.pairs import pair_name
from sdrrl_nemo.data.rows import COMPONENTS, RejectRow, SampleRow, TranslatedRow


class Subsets(Stage[TranslatedRow, SampleRow]):
    """Makes of each row up to four samples, one for each combination of question and answer language (section 3.2.2).

    ``subsets`` names the combinations to make (of LL, TL, LT, TT) and for each the subset that its samples belong to.
    The stage counts samples, not rows. A combination that needs a rejected translation is itself rejected.
    """

    name = "subsets"

    def __init__(self, pair: Pair, subsets: Mapping[str, str], shard_size: int) -> None:
        self.pair, self.subsets, self.shard_size = pair, dict(subsets), shard_size

    def settings(self) -> Any:
        return {"pair": list(self.pair), "subsets": self.subsets}

    def chosen(self, row: TranslatedRow) -> list[str]:
        """The combinations made of one row."""
        return list(self.subsets)

    def process(self, rows: list[TranslatedRow]) -> Outcome[SampleRow]:
        out: list[SampleRow] = []
        rejects: list[RejectRow] = []
        entered = 0
        for row in rows:
            for combination in self.chosen(row):
                entered += 1
                sample = self._sample(row, combination)
                if sample is None:
                    reason = f"{combination}: translation rejected"
                    rejects.append({"key": row["key"], "question": row["question"], "reason": reason})
                else:
                    out.append(sample)
        return Outcome(out, entered, len(out), rejects)

    def _sample(self, row: TranslatedRow, combination: str) -> SampleRow | None:
        # First letter: the questions' language; second: the answers'. L is the source language, T the target. One turn
        # whose translation was rejected costs the conversation every combination that needs such turns.
        texts = [_said(row, place, combination) for place in places(row)]
        if None in texts:
            return None
        *earlier, (question, answer) = _pairs(cast("list[str]", texts))
        before = history(row)
        if "earlier" in before:
            before["earlier"] = [{"question": q, "answer": a} for q, a in earlier]
        sample: SampleRow = {
            **before,
            "subset": self.subsets[combination],
            "combination": combination,
            "pair": pair_name(self.pair),
            "question": question,
            "answer": answer,
            "question_language": self.pair["LT".index(combination[0])],
            "answer_language": self.pair["LT".index(combination[1])],
            "source_key": row["source_key"],
            "origin": row["origin"],
        }
        if "weight" in row:
            sample["weight"] = row["weight"]
        return sample


def _said(row: TranslatedRow, place: Place, combination: str) -> str | None:
    """A text of the row in the language that the combination wants for it; None where its translation was rejected."""
    letter = combination[COMPONENTS.index(place.component)]
    return text_at(row, place) if letter == "L" else target_at(row, place)


def _pairs(texts: list[str]) -> list[tuple[str, str]]:
    """Question and answer, question and answer, ... as pairs."""
    return list(zip(texts[::2], texts[1::2], strict=True))


class DrawnSubsets(Subsets):
    """Draws combinations for each row instead of making all four: the baseline CIT, cross-lingual instruction tuning
    (Li et al. 2023a).

    A draw takes the question in either language with probability 1/2, and the answer in the other language with
    ``cross_probability``; each row is drawn for ``repeat`` times.
    """

    def __init__(
        self, pair: Pair, subsets: Mapping[str, str], draws: CrossLingualConfig, seed: int, shard_size: int
    ) -> None:
        super().__init__(pair, subsets, shard_size)
        self.draws, self.seed = draws, seed

    def settings(self) -> Any:
        return {**super().settings(), "draws": asdict(self.draws), "seed": self.seed}

    def chosen(self, row: TranslatedRow) -> list[str]:
        drawn = []
        # The draw is named by row and number, so more repeats leave the first ones as they were.
        for number in range(self.draws.repeat):
            rng = named_random(self.seed, "cross-lingual", pair_name(self.pair), row["key"], number)
            question = "LT"[rng.randrange(2)]
            other = {"L": "T", "T": "L"}[question]
            drawn.append(question + (other if rng.random() < self.draws.cross_probability else question))
        return drawn
