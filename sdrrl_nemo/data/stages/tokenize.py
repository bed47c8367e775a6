"""Samples as token ids; a sample that is longer than a pack is dropped, never cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.rows import OrderedRow, TokenizedRow, TooLongRow
from sdrrl_nemo.data.text.tokenizer import tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokenize(Stage[OrderedRow, TokenizedRow]):
    """Adds ``tokens`` and ``prompt_tokens`` to each sample. A sample longer than a pack is dropped, never cut: the
    model would learn an answer without its end."""

    name = "tokenize"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sha256: str, seq_length: int, shard_size: int) -> None:
        self.tokenizer, self.sha256, self.seq_length, self.shard_size = tokenizer, sha256, seq_length, shard_size

    def settings(self) -> Any:
        return {"tokenizer": self.sha256, "seq_length": self.seq_length}

    def process(self, rows: list[OrderedRow]) -> Outcome[TokenizedRow]:
        encoded = tokenize(self.tokenizer, [r["question"] for r in rows], [r["answer"] for r in rows])
        out: list[TokenizedRow] = []
        rejects: list[TooLongRow] = []
        for row, (tokens, prompt) in zip(rows, encoded, strict=True):
            if len(tokens) > self.seq_length:
                reason = f"{row['subset']}: longer than seq_length"
                rejects.append({**row, "reason": reason, "detail": f"{len(tokens)} tokens"})
            else:
                out.append({**row, "tokens": tokens, "prompt_tokens": prompt})
        return Outcome(out, len(rows), len(out), rejects)
