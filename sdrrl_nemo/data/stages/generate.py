"""Stage ``generate``: the base model answers the training questions, y_hat = M(x) (paper, section 3.2.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sdrrl_nemo.data.conversations import exchanges, history, messages_before
from sdrrl_nemo.data.engines.base import Answer, Generator, fingerprint_of
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.filters import Filter, answer_alone
from sdrrl_nemo.data.readers.values import tidied
from sdrrl_nemo.data.rows import InstructionRow, RejectRow
from sdrrl_nemo.data.text import words
from sdrrl_nemo.data.text.thinking import NOTES, settle


class Generate(Stage[InstructionRow, InstructionRow]):
    """Adds ``generated`` to each question: the model's answer, or None when it was rejected (counted, with reason).

    Where the engine knows it, the answers that the model finished and those it did not are counted, and what became of
    the latter.

    A shard is given to the engine in one call, so what the engine batches together is the same in every run: rounding
    in a padded batch can decide a token.
    """

    name = "generate"

    def __init__(
        self,
        engine: Generator,
        filters: Mapping[str, Filter],
        language: str,
        shard_size: int,
        options: Any,
        thinking: str = "strip",
    ) -> None:
        self.engine, self.filters, self.language, self.options = engine, filters, language, options
        self.shard_size, self.thinking = shard_size, thinking

    def settings(self) -> Any:
        return {
            "engine": fingerprint_of(self.engine),
            "options": self.options,
            "filters": [f.version for f in self.filters.values()],
            "language": self.language,
            "words": words.identity(),
            # The default is not named, so that what was generated before there was a choice stays.
            **({} if self.thinking == "strip" else {"thinking": self.thinking}),
        }

    def process(self, rows: list[InstructionRow]) -> Outcome[InstructionRow]:
        rejects: list[RejectRow] = []
        notes: Counter[str] = Counter()
        said: dict[int, list[str]] = {}
        alone = [i for i, row in enumerate(rows) if not history(row)]
        raw = self.engine.answer([rows[i]["question"] for i in alone]) if alone else []
        for i, answer in zip(alone, raw, strict=True):
            self._take(rows[i], said.setdefault(i, []), answer, rejects, notes)
        self._converse(rows, said, rejects, notes)
        out = [_answered(row, said[i]) for i, row in enumerate(rows)]
        return Outcome(out, len(rows), len(rows) - len(rejects), rejects, notes=notes)

    def _converse(
        self, rows: list[InstructionRow], said: dict[int, list[str]], rejects: list[RejectRow], notes: Counter[str]
    ) -> None:
        """Conversations, all in step: what the model answers next is asked with its own answers before, as it would
        see them in use. One that gave no usable answer is asked nothing more."""
        live = [i for i in range(len(rows)) if i not in said]
        said |= {i: [] for i in live}
        while live:
            raw = self.engine.answers_to([messages_before(rows[i], said[i]) for i in live])
            good = [
                i for i, answer in zip(live, raw, strict=True) if self._take(rows[i], said[i], answer, rejects, notes)
            ]
            live = [i for i in good if len(said[i]) < len(exchanges(rows[i]))]

    def _take(
        self, row: InstructionRow, said: list[str], raw: Answer, rejects: list[RejectRow], notes: Counter[str]
    ) -> bool:
        """Put the next answer behind those of the row, where it is usable."""
        text, reason, detail = self._judge(raw, exchanges(row)[len(said)]["question"], notes)
        if reason is None:
            said.append(text)
            return True
        about: RejectRow = {"key": row["key"], "reason": reason, "detail": detail, "text": raw.text}
        if len(said) + 1 < len(exchanges(row)):
            about["turn"] = len(said) + 1
        rejects.append(about)
        return False

    def _judge(self, raw: Answer, question: str, notes: Counter[str]) -> tuple[str, str | None, str | None]:
        """(answer without thoughts, reason to reject it, detail)."""
        if raw.finished is not None:
            notes["answers finished" if raw.finished else f"answers {raw.reason}"] += 1
        changes: list[str] = []
        (text, blocks), reason = settle(tidied(self.engine.settled(raw), changes).strip(), self.thinking)
        notes.update(changes)
        if blocks and self.thinking in NOTES:
            notes[NOTES[self.thinking]] += blocks
        if reason or not text:
            return text, reason or _nothing(raw), None
        for name, judge in self.filters.items():
            detail = judge.reject(answer_alone(text, self.language, question))
            if detail:
                return text, name, detail
        if raw.finished is False:
            notes["unfinished answers used"] += 1
        return text, None, None


def _nothing(raw: Answer) -> str:
    """Why there is no text; some engines do not say whether the model ended an answer."""
    if raw.finished is None:
        return "empty or unfinished answer"
    return "empty answer" if raw.finished else raw.reason


def _answered(row: InstructionRow, said: list[str]) -> InstructionRow:
    """The row with the model's answers; None where it did not give all."""
    if len(said) < len(exchanges(row)):
        return {**row, "generated": None}
    *earlier, last = said
    new: InstructionRow = {**row, "generated": last}
    if "earlier" in row:
        new["generated_earlier"] = earlier
    return new
