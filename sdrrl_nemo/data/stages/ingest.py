"""The instruction set D: read, check, drop duplicates, split into training and held-out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.seeding import derive_seed
from sdrrl_nemo.data.config import InstructionsConfig, TurnsConfig, without_later
from sdrrl_nemo.data.conversations import exchanges
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.readers import Example, Reading, Skipped, read_examples
from sdrrl_nemo.data.readers.turns import LATER_TURNS, SYSTEM_TURN
from sdrrl_nemo.data.rows import History, InstructionRow, NoRow, RejectRow, Split
from sdrrl_nemo.data.text import thinking

BEYOND, BEGINS_ALIKE = "beyond instructions.limit", "begins with a held-out question"
DUPLICATE = "duplicate question"
NOT_AGAINST_THE_SET = (DUPLICATE, "empty question", "empty answer", thinking.FORBIDDEN)
"""Reasons that do not count for ``instructions.max_rejected``."""


class Instructions(NamedTuple):
    """An instruction set as read: its rows in the set's order, what was rejected, and counts of what was left out."""

    rows: list[InstructionRow]
    rejects: list[RejectRow]
    notes: Counter[str]


class HeldOutSplit(NamedTuple):
    """Training rows and held-out rows, each in the order of the set."""

    train: list[InstructionRow]
    held_out: list[InstructionRow]


def read_instructions(config: InstructionsConfig, turns: TurnsConfig | None = None) -> Instructions:
    """Read an instruction set and leave out repeated questions.

    A question that was seen before is a duplicate whatever its answer: with two answers it could stand in the training
    set and among the held-out questions. Of conversations all questions together are compared. A record that cannot be
    used is rejected with its place and the reason; raises SdrrlError where these are more than ``max_rejected`` of all.
    """
    rows: list[InstructionRow] = []
    rejects: list[RejectRow] = []
    notes: Counter[str] = Counter()
    first_place: dict[str, str] = {}
    bad: list[Skipped] = []
    for found in read_examples(config.path, reading(config, turns or TurnsConfig())):
        if isinstance(found, Skipped):
            rejects.append({"key": content_key("skipped", found.where), "reason": found.reason, "detail": found.where})
            bad += [] if found.wanted else [found]
            continue
        notes.update(found.notes)
        row = _row(found)
        seen = _asked(row)
        if seen in first_place:
            detail = f"{found.where} repeats the question of {first_place[seen]}"
            rejects.append({"key": row["key"], "reason": DUPLICATE, "detail": detail, "question": found.question})
            continue
        first_place[seen] = found.where
        rows.append(row)
    _require_share(config, len(rows) + len(rejects), bad)
    if not rows:
        raise SdrrlError(f"{config.path}: no instruction in this file")
    return Instructions(rows, rejects, notes)


def _row(found: Example) -> InstructionRow:
    before: History = {}
    if found.system:
        before["system"] = found.system
    if found.earlier:
        before["earlier"] = [{"question": question, "answer": answer} for question, answer in found.earlier]
    key = content_key("instruction", found.question, found.answer, *([before] if before else []))
    row: InstructionRow = {"key": key, "question": found.question, "answer": found.answer, **before}
    if found.weight != 1.0:
        row["weight"] = found.weight
    return row


def _asked(row: InstructionRow) -> str:
    """What makes two rows the same: their questions, behind their system turn."""
    system = [f"\0{_fold(row['system'])}"] if "system" in row else []
    return "\n".join([*system, *(_fold(e["question"]) for e in exchanges(row))])


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def reading(config: InstructionsConfig, turns: TurnsConfig) -> Reading:
    """How the records of a set become questions and answers."""
    return Reading(
        format=config.format,
        fields=config.fields,
        split=config.split,
        drop_empty=config.drop_empty,
        keep_system=turns.system == "keep",
        most=turns.most,
        max_characters=config.max_characters,
        thinking=config.thinking,
        weight=config.weight,
    )


def require_share(config: InstructionsConfig, total: int, rejects: Iterable[Mapping[str, Any]]) -> None:
    """The same of a finished stage, since ``max_rejected`` may have been lowered since; ``total``: its records."""
    bad = [Skipped(r["detail"], r["reason"]) for r in rejects if r["reason"] not in NOT_AGAINST_THE_SET]
    _require_share(config, total, bad)


def _require_share(config: InstructionsConfig, total: int, bad: list[Skipped]) -> None:
    """SdrrlError that shows the first rejected record, and the reasons of all, when they are more than may be."""
    if len(bad) <= config.max_rejected * total:
        return
    reasons = Counter(found.reason for found in bad).most_common(3)
    counted = ", ".join(f"{reason}: {n}" for reason, n in reasons)
    raise SdrrlError(
        f"{bad[0].where}: {bad[0].reason}{bad[0].hint}; {len(bad)} of {total} records are rejected ({counted}), "
        f"more than instructions.max_rejected={config.max_rejected:g} allows; mend the set, or raise that share"
    )


def split_held_out(rows: list[InstructionRow], held_out: int, limit: int | None, seed: int) -> HeldOutSplit:
    """Hold ``held_out`` rows out of training.

    Who is held out follows from the row's key and the seed, so adding rows elsewhere or reordering the file moves
    nothing; ``limit`` keeps that many training rows, chosen the same way. A conversation that begins with the question
    of a held-out one is in neither: evaluation asks the first questions.
    """
    if held_out >= len(rows):
        raise SdrrlError(f"instructions.held_out: {held_out} of {len(rows)} questions leaves none for training")
    ranked = sorted((row["key"] for row in rows), key=lambda key: (derive_seed(seed, "held-out", key), key))
    held = set(ranked[:held_out])
    known = openings(row for row in rows if row["key"] in held)
    opening = {row["key"]: _opening(row) for row in rows}
    free = [key for key in ranked[held_out:] if opening[key] not in known]
    train = set(free if limit is None else free[:limit])
    return HeldOutSplit([r for r in rows if r["key"] in train], [r for r in rows if r["key"] in held])


def openings(rows: Iterable[InstructionRow]) -> set[str]:
    """The first questions of conversations, folded."""
    return {_opening(row) for row in rows}


def _opening(row: InstructionRow) -> str:
    return _fold(exchanges(row)[0]["question"])


class Ingest(Stage[NoRow, InstructionRow]):
    """Reads D and marks each row ``train`` or ``held-out``."""

    name = "ingest"

    def __init__(self, config: InstructionsConfig, sha256: str, seed: int, turns: TurnsConfig | None = None) -> None:
        self.config, self.sha256, self.seed, self.turns = config, sha256, seed, turns or TurnsConfig()
        self.anew = False
        """Whether a finished result of the time before conversations were read whole is left alone."""

    def left_out(self, notes: Mapping[str, int]) -> bool:
        """Whether a finished result, by its notes, lacks turns that are wanted: it was made before they were read."""
        first_alone = self.turns.most is None and LATER_TURNS in notes
        return first_alone or (self.turns.system == "keep" and SYSTEM_TURN in notes)

    def settings(self) -> Any:
        section = without_later(self.config)
        section.pop("max_rejected", None)  # it decides whether the run goes on, not what the rows are
        plain = {**section, "path": self.sha256, "seed": self.seed}
        turns = {"system": self.turns.system, "most": self.turns.most}
        default = self.turns.system == "keep" and self.turns.most is None
        return plain if default and not self.anew else {**plain, "turns": turns}

    def process(self, rows: list[NoRow]) -> Outcome[InstructionRow]:
        found, rejects, notes = read_instructions(self.config, self.turns)
        train, held = split_held_out(found, self.config.held_out, self.config.limit, self.seed)
        chosen = [*_marked(train, "train"), *_marked(held, "held-out")]
        dropped = Counter(r["reason"] for r in rejects)
        known, taken = openings(held), {row["key"] for row in chosen}
        left = [row for row in found if row["key"] not in taken]
        dropped += Counter(BEGINS_ALIKE if _opening(row) in known else BEYOND for row in left)
        notes |= Counter({"training": len(train), "held out": len(held)})
        return Outcome(chosen, len(found) + len(rejects), len(chosen), rejects, dropped, notes)


def _marked(rows: list[InstructionRow], split: Split) -> list[InstructionRow]:
    return [{**row, "split": split} for row in rows]
