"""Stage ``generate``: the base model answers the training questions, y_hat = M(x) (paper, section 3.2.1)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sdrrl_nemo.data.engines.base import Generator
from sdrrl_nemo.data.filters import Filter, TextPair
from sdrrl_nemo.data.runner import Outcome, Row, Stage

# Sentence end: final punctuation with closing quotes, before a space or the end; not the full stop of "2." in a list.
SENTENCE_END = re.compile(r"""(?<!\d)[.!?…]["'”’)\]]*(?=\s|$) | [。！？।។]["'”’」』)\]]* | (?<=\S)(?=\s*\n)""", re.VERBOSE)


def trim_unfinished(text: str) -> str:
    """``text`` up to its last whole sentence or line; empty when there is none."""
    ends = [m.end() for m in SENTENCE_END.finditer(text)]
    return text[: ends[-1]].rstrip() if ends else ""


class Generate(Stage):
    """Adds ``generated`` to each question: the model's answer, or None when it was rejected (counted, with reason).

    An answer of ``max_new_tokens`` tokens (an attribute of engines that cap) was cut by the cap, not ended by the
    model. Trained as it is, with the end-of-text token after it, it would teach the model to stop in mid-sentence.
    """

    name = "generate"

    def __init__(
        self,
        engine: Generator,
        filters: Mapping[str, Filter],
        unfinished: str,
        language: str,
        shard_size: int,
        count_tokens: Callable[[str], int],
        options: Any,
    ) -> None:
        self.engine, self.filters, self.unfinished = engine, filters, unfinished
        self.language, self.shard_size = language, shard_size
        self.count_tokens, self.options = count_tokens, options

    def settings(self) -> Any:
        return {
            "engine": self.engine.identity,
            "options": self.options,
            "filters": [type(f).__name__ + str(f.version) for f in self.filters.values()],
            "unfinished": self.unfinished,
            "language": self.language,
        }

    def process(self, rows: list[Row]) -> Outcome:
        answers = self.engine.generate([row["question"] for row in rows])
        out, rejects = [], []
        notes: Counter[str] = Counter()
        for row, raw in zip(rows, answers, strict=True):
            text, reason, detail = self._judge(raw.strip(), notes)
            if reason:
                rejects.append({"key": row["key"], "reason": reason, "detail": detail, "text": raw})
            out.append({**row, "generated": None if reason else text})
        return Outcome(out, len(rows), len(rows) - len(rejects), rejects, notes=notes)

    def _judge(self, text: str, notes: Counter[str]) -> tuple[str, str | None, str | None]:
        """(text to keep, reason to reject, detail)."""
        if not text:
            return text, "empty answer", None
        cap = getattr(self.engine, "max_new_tokens", None)
        # Two tokens of slack: ends were stripped, and text does not always tokenise back the same way.
        if self.unfinished != "keep" and cap is not None and self.count_tokens(text) >= cap - 2:
            whole = trim_unfinished(text)
            if self.unfinished == "drop" or not whole:
                return text, "unfinished answer", f"stopped by the cap of {cap} tokens"
            notes["trimmed to the last sentence"] += whole != text
            text = whole
        for name, judge in self.filters.items():
            detail = judge.reject(TextPair(text, text, self.language, self.language))
            if detail:
                return text, name, detail
        return text, None, None
