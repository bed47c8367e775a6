"""Questions and answers into the target language (section 3.2.2)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sdrrl_nemo.data.config import Pair
from sdrrl_nemo.data.conversations import numbered, places, set_target, target_at, text_at
from sdrrl_nemo.data.engines.base import Translator, fingerprint_of
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.rows import RejectRow, SynthRow, TranslatedRow

RERANKED = "segments whose first candidate was not the best"
"""What the statistics count with ``translation.candidates``."""


class Translate(Stage[SynthRow, TranslatedRow]):
    """x, y and y_hat into the target language (section 3.2.2); counts translations, two an exchange.

    Every turn of a conversation is translated by itself, as any text is; its system turn stays as it is.
    """

    def __init__(self, name: str, engine: Translator, options: Any, pair: Pair, shard_size: int) -> None:
        self.name, self.engine, self.options = name, engine, options
        (self.source, self.target), self.shard_size = pair, shard_size

    def settings(self) -> Any:
        engine = fingerprint_of(self.engine, self.source, self.target)
        return {"engine": engine, "options": self.options, "pair": [self.source, self.target]}

    def process(self, rows: list[SynthRow]) -> Outcome[TranslatedRow]:
        # Each text once: y and y_hat of one question share the question, and short answers repeat.
        texts = list(dict.fromkeys(text_at(row, place) for row in rows for place in places(row)))
        before = self.engine.reranked
        translated = dict(zip(texts, self.engine.translate(texts, self.source, self.target), strict=True))
        reranked = self.engine.reranked - before
        notes = Counter({RERANKED: reranked} if reranked else {})
        out: list[TranslatedRow] = []
        rejects: list[RejectRow] = []
        entered = 0
        for row in rows:
            new: TranslatedRow = {**row, "question_target": None, "answer_target": None}
            if "earlier" in row:
                new["earlier_target"] = [{"question": None, "answer": None} for _ in row["earlier"]]
            for place in places(row):
                entered += 1
                text = text_at(row, place)
                set_target(new, place, translated[text].strip() or None)
                if target_at(new, place) is None:
                    about: RejectRow = {"key": row["key"], "component": place.component, "reason": "empty"}
                    rejects.append({**about, "source": text, **numbered(place)})  # type: ignore[typeddict-item]
            out.append(new)
        return Outcome(out, entered, entered - len(rejects), rejects, notes=notes)
