"""Stage ``generate``: the base model answers the training questions, y_hat = M(x) (paper, section 3.2.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sdrrl_nemo.data.engines.base import Generator
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.filters import Filter, TextPair
from sdrrl_nemo.data.rows import InstructionRow, RejectRow
from sdrrl_nemo.data.text import words
from sdrrl_nemo.data.text.thinking import NOTES, settle


class Generate(Stage[InstructionRow, InstructionRow]):
    """Adds ``generated`` to each question: the model's answer, or None when it was rejected (counted, with reason).

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
            "engine": self.engine.identity,
            "options": self.options,
            "filters": [f.version for f in self.filters.values()],
            "language": self.language,
            "words": words.identity(),
            # The default is not named, so that what was generated before there was a choice stays.
            **({} if self.thinking == "strip" else {"thinking": self.thinking}),
        }

    def process(self, rows: list[InstructionRow]) -> Outcome[InstructionRow]:
        questions = [row["question"] for row in rows]
        answers = self.engine.generate(questions)
        out: list[InstructionRow] = []
        rejects: list[RejectRow] = []
        notes: Counter[str] = Counter()
        for row, raw in zip(rows, answers, strict=True):
            text, reason, detail = self._judge(raw.strip(), notes)
            if reason:
                rejects.append({"key": row["key"], "reason": reason, "detail": detail, "text": raw})
            out.append({**row, "generated": None if reason else text})
        return Outcome(out, len(rows), len(rows) - len(rejects), rejects, notes=notes)

    def _judge(self, raw: str, notes: Counter[str]) -> tuple[str, str | None, str | None]:
        """(answer without thoughts, reason to reject it, detail). Engines return nothing for an answer they could not
        finish."""
        (text, blocks), reason = settle(raw, self.thinking)
        if blocks and self.thinking in NOTES:
            notes[NOTES[self.thinking]] += blocks
        if reason or not text:
            return text, reason or "empty or unfinished answer", None
        for name, judge in self.filters.items():
            detail = judge.reject(TextPair(text, text, self.language, self.language))
            if detail:
                return text, name, detail
        return text, None, None
