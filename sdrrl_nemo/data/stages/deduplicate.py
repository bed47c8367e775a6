"""Stage ``duplicates``: the same question twice within one pair of languages, found over all rows, on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.fileio import read_jsonl, write_jsonl
from sdrrl_nemo.data.config import Pair
from sdrrl_nemo.data.conversations import questions, questions_target
from sdrrl_nemo.data.execution.external_sort import external_sort
from sdrrl_nemo.data.execution.stage_runner import Outcome, StreamStage
from sdrrl_nemo.data.filters import Duplicate, TextPair
from sdrrl_nemo.data.filters.duplicates import Mark
from sdrrl_nemo.data.rows import RejectRow, TranslatedRow
from sdrrl_nemo.data.text import segmentation

NUMBER = re.compile(r":\d{12}")
"""The row number that a mark carries behind the question's key."""


class Duplicates(StreamStage[TranslatedRow, TranslatedRow]):
    """Rejects a translated question where another row has the same question, or the same translation of another one.

    Two instructions may become one in translation; with two answers they would contradict each other in TL and TT.
    Conversations are compared by all their questions together. Answers are not compared: the same answer to two
    questions is no mistake. Which row keeps its question follows from the rows' content, not from their order. Counts
    questions. Memory holds one sorted run and one shard.
    """

    def __init__(self, name: str, judge: Duplicate, pair: Pair, shard_size: int) -> None:
        self.name, self.judge, self.pair, self.part = name, judge, pair, shard_size

    def settings(self) -> Any:
        judge = [self.judge.version, self.judge.sides, self.judge.min_characters]
        return {"duplicate": judge, "pair": list(self.pair), "part": self.part, "protected": segmentation.REVISION}

    def stream(self, rows: Iterator[TranslatedRow], workspace: Path) -> Iterator[Outcome[TranslatedRow]]:
        folders = [workspace / name for name in ("marks", "repeats")]
        for folder in folders:
            folder.mkdir()
        spill = workspace / "rows.jsonl"
        write_jsonl(spill, _grouped(rows))
        marks = external_sort(self._marks(spill), lambda mark: mark, folders[0])
        repeats = external_sort(self.judge.repeats(marks), lambda item: _number(item[0]), folders[1])
        found = ((_number(name), NUMBER.sub("", reason)) for name, reason in repeats)
        judged = self._judged(spill, found)
        while part := list(islice(judged, self.part)):
            entered = sum(questions_target(row) is not None for row, _ in part)
            rejects = [_reject(row, detail) for row, detail in part if detail]
            out = [_without_question(row) if detail else row for row, detail in part]
            yield Outcome(out, entered, entered - len(rejects), rejects)

    def _marks(self, spill: Path) -> Iterator[Mark]:
        for _, item in read_jsonl(spill):
            row = item["row"]
            target = questions_target(row)
            if target is not None:
                pair = TextPair(questions(row), target, *self.pair)
                yield from self.judge.marks(f"{row['source_key']}:{item['group']:012d}", pair)

    def _judged(self, spill: Path, found: Iterator[tuple[int, str]]) -> Iterator[tuple[TranslatedRow, str | None]]:
        """(row, reason to reject its translated question); ``found`` is in the order of the rows."""
        number, reason = next(found, (-1, ""))
        for _, item in read_jsonl(spill):
            while 0 <= number < item["group"]:
                number, reason = next(found, (-1, ""))
            hit = number == item["group"] and questions_target(item["row"]) is not None
            yield item["row"], reason if hit else None


def _without_question(row: TranslatedRow) -> TranslatedRow:
    return {**row, "question_target": None}


def _grouped(rows: Iterator[TranslatedRow]) -> Iterator[dict[str, Any]]:
    """Rows with the number of the first row of their question: y and y_hat of one question follow each other."""
    question, group = None, 0
    for number, row in enumerate(rows):
        if row["source_key"] != question:
            question, group = row["source_key"], number
        yield {"group": group, "row": row}


def _number(name: str) -> int:
    return int(name.rpartition(":")[2])


def _reject(row: TranslatedRow, detail: str) -> RejectRow:
    return {
        "key": row["key"],
        "component": "question",
        "source": questions(row),
        "target": questions_target(row),
        "reason": "duplicate",
        "detail": detail,
    }
