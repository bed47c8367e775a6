"""D_mt and D_comp from the external parallel corpus (paper, section 3.2.4, Table 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.seeding import derive_seed, named_random
from sdrrl_nemo.data.config import Pair
from sdrrl_nemo.data.engines.base import ParallelCorpus, fingerprint_of
from sdrrl_nemo.data.execution.external_sort import external_sort
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage, StreamStage
from sdrrl_nemo.data.pairs import pair_name
from sdrrl_nemo.data.rows import NoRow, PairRow, RejectRow, SampleRow, Split
from sdrrl_nemo.data.text import words
from sdrrl_nemo.data.text.templates import completion_question, instruction_code, random_prefix, translation_question

Side = Literal["source", "target"]
SIDES: tuple[Side, Side] = ("source", "target")


class SelectPairs(StreamStage[NoRow, PairRow]):
    """Chooses training and held-out pairs by content key; no sentence of a held-out pair is in a training pair.

    The held-out pairs come first in the seeded order, so they stay the same when more training pairs are asked for.
    The corpus is sorted on disk: memory holds the held-out pairs and one shard.
    """

    name = "parallel"
    version = 2

    def __init__(
        self, corpus: ParallelCorpus, options: Any, pair: Pair, sizes: tuple[int, int], seed: int, part: int = 4096
    ) -> None:
        self.corpus, self.options, self.pair, self.seed = corpus, options, pair, seed
        self.train, self.held_out = sizes
        self.part = part

    def settings(self) -> Any:
        sizes = [self.train, self.held_out]
        return [fingerprint_of(self.corpus, *self.pair), self.options, list(self.pair), sizes, self.seed]

    def _rows(self) -> Iterator[PairRow]:
        for source, target in self.corpus.pairs(*self.pair):
            yield {"key": content_key("pair", source, target), "source": source, "target": target}

    def stream(self, rows: Iterator[NoRow], workspace: Path) -> Iterator[Outcome[PairRow]]:
        # Sorting by a seeded hash is a shuffle that does not depend on the corpus' own order.
        ranked = external_sort(
            self._rows(), lambda r: (derive_seed(self.seed, "parallel", r["key"]), r["key"]), workspace
        )
        held = [_marked(row, "held-out") for row in islice(ranked, self.held_out)]
        # A corpus repeats a sentence in several pairs, so keeping the pairs apart is not enough: keep sentences apart.
        unseen = {_fold(row[side]) for row in held for side in SIDES}
        yield Outcome(held, len(held), len(held), notes=Counter({"held out": len(held)}))
        train = found = 0
        while part := list(islice(ranked, self.part)):
            dropped: Counter[str] = Counter()
            chosen: list[PairRow] = []
            for row in part:
                if unseen & {_fold(row["source"]), _fold(row["target"])}:
                    dropped["sentence is held out"] += 1
                elif train + len(chosen) == self.train:
                    dropped["not needed"] += 1
                else:
                    chosen.append(_marked(row, "train"))
            train, found = train + len(chosen), found + len(part)
            yield Outcome(chosen, len(part), len(chosen), dropped=dropped, notes=Counter({"training": len(chosen)}))
        if len(held) < self.held_out or train < self.train:
            raise SdrrlError(
                f"the parallel corpus for {pair_name(self.pair)} has {len(held) + found} pairs, enough for {len(held)} "
                f"held-out and {train} training pairs where {self.held_out} and {self.train} are asked for; lower "
                "parallel.train_pairs or parallel.held_out_pairs"
            )


def _marked(row: PairRow, split: Split) -> PairRow:
    return {**row, "split": split}


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


class Templates(Stage[PairRow, SampleRow]):
    """Makes of each sentence pair two samples of D_mt, one in each direction, and one sample of D_comp (Table 1).

    D_comp asks for the target sentence, given its beginning. ``subsets`` says which of ``mt`` and ``comp`` are wanted
    and names the subset that their samples belong to; ``wording`` is (``instruction_language``, ``split``) of
    ParallelConfig.
    """

    name = "templates"

    def __init__(
        self, pair: Pair, subsets: Mapping[str, str], wording: tuple[str, str], seed: int, shard_size: int
    ) -> None:
        self.pair, self.subsets, self.seed, self.shard_size = pair, dict(subsets), seed, shard_size
        self.wording, self.split = wording
        self.instruction = instruction_code(self.wording, pair[1])

    def settings(self) -> Any:
        code = self.instruction
        # The wording itself is a setting: a changed template must not meet samples made with the old one.
        texts = [translation_question("", *self.pair, code), completion_question("", self.pair[1], code)]
        return [list(self.pair), self.subsets, self.split, texts, self.seed, words.identity()]

    def process(self, rows: list[PairRow]) -> Outcome[SampleRow]:
        out: list[SampleRow] = []
        rejects: list[RejectRow] = []
        for row in rows:
            if "mt" in self.subsets:
                out += [self._translation(row, 0, 1), self._translation(row, 1, 0)]
            if "comp" in self.subsets:
                sample = self._completion(row)
                if sample is None:
                    rejects.append({"key": row["key"], "reason": "too short to split", "target": row["target"]})
                else:
                    out.append(sample)
        return Outcome(out, len(out) + len(rejects), len(out), rejects)

    def _translation(self, row: PairRow, begin: int, end: int) -> SampleRow:
        question = translation_question(row[SIDES[begin]], self.pair[begin], self.pair[end], self.instruction)
        return self._sample(row, "mt", question, row[SIDES[end]], self.pair[end])

    def _completion(self, row: PairRow) -> SampleRow | None:
        target = self.pair[1]
        rng = named_random(self.seed, "completion", row["key"])
        prefix = random_prefix(row["target"], target, rng, self.split)
        if prefix is None:  # one word has no place to split
            return None
        # Table 1: the answer is the whole sentence, the beginning that the question shows included.
        return self._sample(row, "comp", completion_question(prefix, target, self.instruction), row["target"], target)

    def _sample(self, row: PairRow, kind: str, question: str, answer: str, answer_language: str) -> SampleRow:
        return {
            "subset": self.subsets[kind],
            "combination": kind,
            "pair": pair_name(self.pair),
            "question": question,
            "answer": answer,
            "question_language": self.instruction,  # the instruction's language, whatever the sentence in it
            "answer_language": answer_language,
            "source_key": row["key"],
            "origin": "parallel",
        }
