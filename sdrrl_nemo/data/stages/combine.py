"""LL, TL, LT and TT: question and answer of a row, each in one of the two languages (section 3.2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sdrrl_nemo.common.seeding import named_random
from sdrrl_nemo.data.config import CrossLingualConfig, Pair
from sdrrl_nemo.data.execution.stage_runner import Outcome, Row, Stage
from sdrrl_nemo.data.pairs import pair_name


class Subsets(Stage):
    """The combinations (of LL, TL, LT, TT) of question and answer language (section 3.2.2); counts samples.

    ``subsets``: combination -> name of the subset its samples belong to.
    """

    name = "subsets"

    def __init__(self, pair: Pair, subsets: Mapping[str, str], shard_size: int) -> None:
        self.pair, self.subsets, self.shard_size = pair, dict(subsets), shard_size

    def settings(self) -> Any:
        return {"pair": list(self.pair), "subsets": self.subsets}

    def chosen(self, row: Row) -> list[str]:
        """The combinations made of one row."""
        return list(self.subsets)

    def process(self, rows: list[Row]) -> Outcome:
        out: list[Row] = []
        rejects: list[Row] = []
        entered = 0
        for row in rows:
            for combination in self.chosen(row):
                entered += 1
                sample = self._sample(row, combination)
                if sample is None:
                    about = {"key": row["key"], "question": row["question"]}
                    rejects.append({**about, "reason": f"{combination}: translation rejected"})
                else:
                    out.append(sample)
        return Outcome(out, entered, len(out), rejects)

    def _sample(self, row: Row, combination: str) -> Row | None:
        question = row["question"] if combination[0] == "L" else row["question_target"]
        answer = row["answer"] if combination[1] == "L" else row["answer_target"]
        if question is None or answer is None:
            return None
        return {
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


class DrawnSubsets(Subsets):
    """One combination a draw: the question in either language with probability 1/2, its answer in the other one with
    ``cross_probability`` (Li et al. 2023a, cross-lingual instruction following)."""

    def __init__(
        self, pair: Pair, subsets: Mapping[str, str], draws: CrossLingualConfig, seed: int, shard_size: int
    ) -> None:
        super().__init__(pair, subsets, shard_size)
        self.draws, self.seed = draws, seed

    def settings(self) -> Any:
        return {**super().settings(), "draws": asdict(self.draws), "seed": self.seed}

    def chosen(self, row: Row) -> list[str]:
        drawn = []
        for number in range(self.draws.repeat):
            rng = named_random(self.seed, "cross-lingual", pair_name(self.pair), row["key"], number)
            question = "LT"[rng.randrange(2)]
            other = {"L": "T", "T": "L"}[question]
            drawn.append(question + (other if rng.random() < self.draws.cross_probability else question))
        return drawn
