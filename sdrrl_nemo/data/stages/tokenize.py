"""Samples as token ids; a sample that is longer than a pack is dropped, never cut."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sdrrl_nemo.data.conversations import conversation_of
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.rows import OrderedRow, TokenizedRow, UntokenizedRow
from sdrrl_nemo.data.text.conversation import Chat, Unmaskable

REVISION = 2
"""Changes whenever the code here may give other ids for the same row."""


class Tokenize(Stage[OrderedRow, TokenizedRow]):
    """Adds ``tokens`` and ``spans`` to each sample. A sample longer than a pack is dropped, never cut: the model would
    learn an answer without its end."""

    name = "tokenize"

    def __init__(self, chat: Chat, sha256: str, seq_length: int, shard_size: int, supervise: str = "all") -> None:
        """``supervise``: the loss is on ``all`` answers of a conversation, or on the ``last``."""
        self.chat, self.sha256, self.seq_length, self.shard_size = chat, sha256, seq_length, shard_size
        self.supervise = supervise

    def settings(self) -> Any:
        asked = {"seq_length": self.seq_length, "supervise": self.supervise}
        return {"tokenizer": self.sha256, **asked, "revision": REVISION}

    def process(self, rows: list[OrderedRow]) -> Outcome[TokenizedRow]:
        encoded = self.chat.encode([conversation_of(row) for row in rows], self.supervise)
        out: list[TokenizedRow] = []
        rejects: list[UntokenizedRow] = []
        notes: Counter[str] = Counter()
        for row, found in zip(rows, encoded, strict=True):
            if isinstance(found, Unmaskable):
                rejects.append({**row, "reason": f"{row['subset']}: no exact loss mask", "detail": found.reason})
            elif len(found.tokens) > self.seq_length:
                reason = f"{row['subset']}: longer than seq_length"
                rejects.append({**row, "reason": reason, "detail": f"{len(found.tokens)} tokens"})
            else:
                notes["control tokens encoded as plain text"] += found.plain
                out.append({**row, "tokens": found.tokens, "spans": [list(span) for span in found.spans]})
        return Outcome(out, len(rows), len(out), rejects, notes=+notes)
