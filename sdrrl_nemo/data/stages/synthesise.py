"""D_synth (Eq. 4): each question with its own answer y, with the model's answer y_hat, or with both."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.seeding import named_random
from sdrrl_nemo.data.execution.stage_runner import Outcome, Row, Stage


def draws_y_hat(seed: int, key: str) -> bool:
    """Eq. 4's coin for one question: True for y_hat, with probability 1/2; known before y_hat is generated."""
    return named_random(seed, "synth", key).random() < 0.5


class Sample(Stage):
    """D_synth (Eq. 4): ``sample`` takes y or y_hat per question, each with probability 1/2; ``both`` takes the union,
    ``answers`` y alone.

    A question whose draw is y_hat, where none was usable, is dropped: taking y instead would tilt the draw.
    """

    name = "sample"

    def __init__(self, mode: str, seed: int, shard_size: int) -> None:
        self.mode, self.seed, self.shard_size = mode, seed, shard_size

    def settings(self) -> Any:
        return {"mode": self.mode, "seed": self.seed}

    def _origins(self, key: str) -> tuple[str, ...]:
        if self.mode == "sample":
            return ("y_hat",) if draws_y_hat(self.seed, key) else ("y",)
        return ("y", "y_hat") if self.mode == "both" else ("y",)

    def process(self, rows: list[Row]) -> Outcome:
        out: list[Row] = []
        rejects: list[Row] = []
        notes: Counter[str] = Counter()
        for row in rows:
            for origin in self._origins(row["key"]):
                answer = row["answer"] if origin == "y" else row["generated"]
                if answer is None:
                    rejects.append({"key": row["key"], "reason": "no usable y_hat", "question": row["question"]})
                    continue
                notes[origin] += 1
                out.append(synth_row(row, origin, answer))
        return Outcome(out, len(out) + len(rejects), len(out), rejects, notes=notes)


def synth_row(row: Row, origin: str, answer: str) -> Row:
    """Row of D_synth; ``origin`` is y (the instruction set's answer) or y_hat (the model's)."""
    key = content_key("synth", row["key"], origin, answer)
    return {"key": key, "source_key": row["key"], "origin": origin, "question": row["question"], "answer": answer}
