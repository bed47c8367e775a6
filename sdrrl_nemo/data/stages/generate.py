"""Stage ``generate``: the base model answers the training questions, y_hat = M(x) (paper, section 3.2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrrl_nemo.data.engines.base import Generator
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.filters import Filter, TextPair
from sdrrl_nemo.data.rows import InstructionRow, RejectRow
from sdrrl_nemo.data.text import words


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
    ) -> None:
        self.engine, self.filters, self.language, self.options = engine, filters, language, options
        self.shard_size = shard_size

    def settings(self) -> Any:
        return {
            "engine": self.engine.identity,
            "options": self.options,
            "filters": [f.version for f in self.filters.values()],
            "language": self.language,
            "words": words.identity(),
        }

    def process(self, rows: list[InstructionRow]) -> Outcome[InstructionRow]:
        questions = [row["question"] for row in rows]
        answers = self.engine.generate(questions)
        out: list[InstructionRow] = []
        rejects: list[RejectRow] = []
        for row, raw in zip(rows, answers, strict=True):
            text = raw.strip()
            reason, detail = self._judge(text)
            if reason:
                rejects.append({"key": row["key"], "reason": reason, "detail": detail, "text": raw})
            out.append({**row, "generated": None if reason else text})
        return Outcome(out, len(rows), len(rows) - len(rejects), rejects)

    def _judge(self, text: str) -> tuple[str | None, str | None]:
        """(reason to reject, detail). Engines return nothing for an answer they could not finish."""
        if not text:
            return "empty or unfinished answer", None
        for name, judge in self.filters.items():
            detail = judge.reject(TextPair(text, text, self.language, self.language))
            if detail:
                return name, detail
        return None, None
