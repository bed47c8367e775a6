"""D_mt and D_comp from the external parallel corpus (paper, section 3.2.4, Table 1), and the final order of samples."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.seeding import derive_seed, named_random
from sdrrl_nemo.data.engines.base import ParallelCorpus
from sdrrl_nemo.data.runner import Outcome, Row, Stage
from sdrrl_nemo.data.templates import completion_question, random_prefix, translation_question


class SelectPairs(Stage):
    """Chooses training and held-out pairs by content key; no sentence of a held-out pair is in a training pair.

    The held-out pairs come first in the seeded order, so they stay the same when more training pairs are asked for.
    """

    name = "parallel"

    def __init__(
        self, corpus: ParallelCorpus, options: Any, pair: tuple[str, str], sizes: tuple[int, int], seed: int
    ) -> None:
        self.corpus, self.options, self.seed = corpus, options, seed
        self.source, self.target = pair
        self.train, self.held_out = sizes

    def settings(self) -> Any:
        sizes = [self.train, self.held_out]
        return [self.corpus.identity, self.options, self.source, self.target, sizes, self.seed]

    def process(self, rows: list[Row]) -> Outcome:
        found = [
            {"key": content_key("pair", s, t), "source": s, "target": t}
            for s, t in self.corpus.pairs(self.source, self.target)
        ]
        found.sort(key=lambda r: (derive_seed(self.seed, "parallel", r["key"]), r["key"]))
        held, rest = found[: self.held_out], found[self.held_out :]
        unseen = {_fold(r[side]) for r in held for side in ("source", "target")}
        train: list[Row] = []
        dropped: Counter[str] = Counter()
        for row in rest:
            if unseen & {_fold(row["source"]), _fold(row["target"])}:
                dropped["sentence is held out"] += 1
            elif len(train) == self.train:
                dropped["not needed"] += 1
            else:
                train.append(row)
        if len(held) < self.held_out or len(train) < self.train:
            raise SdrrlError(
                f"the parallel corpus has {len(found)} pairs, enough for {len(held)} held-out and {len(train)} "
                f"training pairs where {self.held_out} and {self.train} are asked for; lower parallel.train_pairs or "
                "parallel.held_out_pairs"
            )
        chosen = [{**r, "split": "train"} for r in train] + [{**r, "split": "held-out"} for r in held]
        notes = Counter({"training": len(train), "held out": len(held)})
        return Outcome(chosen, len(found), len(chosen), dropped=dropped, notes=notes)


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


class Templates(Stage):
    """Table 1: two D_mt samples a pair, one each way, and one D_comp sample of the target sentence."""

    name = "templates"

    def __init__(self, source: str, target: str, seed: int, shard_size: int) -> None:
        self.source, self.target, self.seed, self.shard_size = source, target, seed, shard_size

    def settings(self) -> Any:
        return [self.source, self.target, self.seed]

    def process(self, rows: list[Row]) -> Outcome:
        out: list[Row] = []
        rejects: list[Row] = []
        for row in rows:
            out.append(self._translation(row, "source", self.source, "target", self.target))
            out.append(self._translation(row, "target", self.target, "source", self.source))
            prefix = random_prefix(row["target"], self.target, named_random(self.seed, "completion", row["key"]))
            if prefix is None:
                detail = {"key": row["key"], "reason": "too short to split", "target": row["target"]}
                rejects.append(detail)
                continue
            question = completion_question(prefix, self.target)
            out.append(self._sample(row, "comp", question, row["target"], self.target))
        return Outcome(out, 3 * len(rows), len(out), rejects)

    def _translation(self, row: Row, side: str, code: str, other: str, other_code: str) -> Row:
        question = translation_question(row[side], code, other_code)
        return self._sample(row, "mt", question, row[other], other_code)

    def _sample(self, row: Row, subset: str, question: str, answer: str, answer_language: str) -> Row:
        return {
            "subset": subset,
            "question": question,
            "answer": answer,
            "question_language": self.source,  # the instruction's language, whatever the sentence in it
            "answer_language": answer_language,
            "source_key": row["key"],
            "origin": "parallel",
        }


class Order(Stage):
    """All samples in their final order: by a seeded hash of their key, which mixes the subsets. Drops exact repeats."""

    name = "order"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def settings(self) -> Any:
        return self.seed

    def process(self, rows: list[Row]) -> Outcome:
        kept: dict[str, Row] = {}
        rejects: list[Row] = []
        for row in rows:
            key = content_key(row["subset"], row["question"], row["answer"])
            if key in kept:
                rejects.append(
                    {"key": key, "reason": f"{row['subset']}: duplicate sample", "question": row["question"]}
                )
            else:
                kept[key] = {"key": key, **row}
        ranked = sorted(kept.values(), key=lambda r: (derive_seed(self.seed, "order", r["key"]), r["key"]))
        return Outcome(ranked, len(rows), len(ranked), rejects)
