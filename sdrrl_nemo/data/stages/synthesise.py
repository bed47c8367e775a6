"""D_synth (Eq. 4): each question with its own answer y, with the model's answer y_hat, or with both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.seeding import named_random
from sdrrl_nemo.data.conversations import exchanges, history
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.filters import Filter, answer_alone
from sdrrl_nemo.data.rows import InstructionRow, Origin, RejectRow, SynthRow
from sdrrl_nemo.data.text import words


def draws_y_hat(seed: int, key: str) -> bool:
    """Toss Eq. 4's coin for one question: True, with probability 1/2, where its answer is to be y_hat.

    The coin needs the question's key alone, so it is known before y_hat exists, and only half of the questions have to
    be put to the model.
    """
    return named_random(seed, "synth", key).random() < 0.5


class Sample(Stage[InstructionRow, SynthRow]):
    """Makes D_synth (Eq. 4) of the questions with their answers y and the model's answers y_hat.

    In mode ``sample`` each question gets y or y_hat, with probability 1/2 each. Mode ``both`` keeps both of them, and
    ``answers`` keeps y alone. ``filters`` judge the answers, y and y_hat, with their questions. Raises KeyError for a
    question that draws y_hat and was never put to the model.
    """

    name = "sample"

    def __init__(
        self,
        mode: str,
        seed: int,
        shard_size: int,
        filters: Mapping[str, Filter] | None = None,
        options: Any = None,
        language: str = "eng",
    ) -> None:
        self.mode, self.seed, self.shard_size = mode, seed, shard_size
        self.filters, self.options, self.language = filters or {}, options, language

    def settings(self) -> Any:
        # Filters came later: without any, what was drawn before there were some stays.
        versions = [f.version for f in self.filters.values()]
        about = {"filters": self.options, "versions": versions, "language": self.language, "words": words.identity()}
        return {"mode": self.mode, "seed": self.seed, **(about if self.filters else {})}

    def _origins(self, key: str) -> tuple[Origin, ...]:
        if self.mode == "sample":
            return ("y_hat",) if draws_y_hat(self.seed, key) else ("y",)
        return ("y", "y_hat") if self.mode == "both" else ("y",)

    def process(self, rows: list[InstructionRow]) -> Outcome[SynthRow]:
        out: list[SynthRow] = []
        rejects: list[RejectRow] = []
        notes: Counter[str] = Counter()
        for row in rows:
            for origin in self._origins(row["key"]):
                said = row if origin == "y" else _self_answered(row)
                if said is None:  # y in its place would tilt the draw towards questions that the model fails on
                    rejects.append({"key": row["key"], "reason": "no usable y_hat", "question": row["question"]})
                    continue
                if reject := self._rejected(said, origin):
                    rejects.append(reject)
                    continue
                notes[origin] += 1
                out.append(synth_row(said, origin, said["answer"]))
        return Outcome(out, len(out) + len(rejects), len(out), rejects, notes=notes)

    def _rejected(self, said: InstructionRow, origin: Origin) -> RejectRow | None:
        """The reject of a row with an answer that a filter says no to; the first one gives the reason."""
        for exchange in exchanges(said):
            text = exchange["answer"]
            for name, judge in self.filters.items():
                if detail := judge.reject(answer_alone(text, self.language, exchange["question"])):
                    about: RejectRow = {"key": said["key"], "reason": f"{origin}: {name}", "detail": detail}
                    return {**about, "question": exchange["question"], "text": text}
        return None


def synth_row(row: InstructionRow, origin: Origin, answer: str) -> SynthRow:
    """One row of D_synth: the question of ``row`` with ``answer``, which is y or y_hat as ``origin`` says."""
    # y and y_hat of one question are two rows and need two keys; what they share is the source key.
    before = history(row)
    earlier = [e["answer"] for e in before.get("earlier", ())]
    key = content_key("synth", row["key"], origin, answer, *([earlier] if earlier else []))
    about: SynthRow = {
        "key": key,
        "source_key": row["key"],
        "origin": origin,
        "question": row["question"],
        "answer": answer,
    }
    if "weight" in row:
        about["weight"] = row["weight"]
    return {**about, **before}


def _self_answered(row: InstructionRow) -> InstructionRow | None:
    """The row with the model's answers in all its exchanges; None where one of them was not usable."""
    if row["generated"] is None:
        return None
    said: InstructionRow = {**row, "answer": row["generated"]}
    if "earlier" in row:
        pairs = zip(row["earlier"], row["generated_earlier"], strict=True)
        said["earlier"] = [{"question": e["question"], "answer": answer} for e, answer in pairs]
    return said
