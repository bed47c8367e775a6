"""Questions and answers into the target language (section 3.2.2)."""

from __future__ import annotations

from typing import Any

from sdrrl_nemo.data.config import Pair
from sdrrl_nemo.data.engines.base import Translator
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.rows import COMPONENTS, TARGET, RejectRow, SynthRow, TranslatedRow


class Translate(Stage[SynthRow, TranslatedRow]):
    """x, y and y_hat into the target language (section 3.2.2); counts translations, two a row."""

    def __init__(self, name: str, engine: Translator, options: Any, pair: Pair, shard_size: int) -> None:
        self.name, self.engine, self.options = name, engine, options
        (self.source, self.target), self.shard_size = pair, shard_size

    def settings(self) -> Any:
        return {"engine": self.engine.identity, "options": self.options, "pair": [self.source, self.target]}

    def process(self, rows: list[SynthRow]) -> Outcome[TranslatedRow]:
        # Each text once: y and y_hat of one question share the question, and short answers repeat.
        texts = list(dict.fromkeys(row[c] for row in rows for c in COMPONENTS))
        translated = dict(zip(texts, self.engine.translate(texts, self.source, self.target), strict=True))
        out: list[TranslatedRow] = []
        rejects: list[RejectRow] = []
        for row in rows:
            new: TranslatedRow = {**row, "question_target": None, "answer_target": None}
            for c in COMPONENTS:
                new[TARGET[c]] = translated[row[c]].strip() or None
                if new[TARGET[c]] is None:
                    rejects.append({"key": row["key"], "component": c, "reason": "empty", "source": row[c]})
            out.append(new)
        return Outcome(out, 2 * len(rows), 2 * len(rows) - len(rejects), rejects)
