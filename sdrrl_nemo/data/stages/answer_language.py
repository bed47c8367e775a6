"""Questions that say which language their answer should be in."""

from __future__ import annotations

from typing import Any

from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.rows import SampleRow
from sdrrl_nemo.data.text.templates import answer_language_request


class AnswerLanguage(Stage[SampleRow, SampleRow]):
    """TL and LT questions say which language to answer in; LL and TT are left alone unless ``always``.

    In a conversation every question does: each of its answers is learned, and each should follow from what was asked.

    Without it a Portuguese question is answered in English in TL and in Portuguese in TT, with equal weight in Eq. 6:
    the model cannot know which, and learns to answer off target. Comes after code-switching, so the request is whole.
    """

    name = "answer-language"

    def __init__(self, always: bool, shard_size: int) -> None:
        self.always, self.shard_size = always, shard_size

    def settings(self) -> Any:
        return {"text": answer_language_request("", "eng"), "always": self.always}

    def process(self, rows: list[SampleRow]) -> Outcome[SampleRow]:
        out: list[SampleRow] = []
        for row in rows:
            if self.always or row["question_language"] != row["answer_language"]:
                row = _requested(row)  # noqa: PLW2901
            out.append(row)
        return Outcome(out, len(rows), len(rows))


def _requested(row: SampleRow) -> SampleRow:
    code = row["answer_language"]
    new: SampleRow = {**row, "question": answer_language_request(row["question"], code)}
    if "earlier" in row:
        new["earlier"] = [
            {"question": answer_language_request(e["question"], code), "answer": e["answer"]} for e in row["earlier"]
        ]
    return new
