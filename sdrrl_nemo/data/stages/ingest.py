"""The instruction set D: read, check, drop duplicates, split into training and held-out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.seeding import derive_seed
from sdrrl_nemo.data.config import InstructionsConfig, without_later
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.readers import Reading, Skipped, read_examples
from sdrrl_nemo.data.rows import InstructionRow, NoRow, RejectRow, Split
from sdrrl_nemo.data.text import thinking

DUPLICATE = "duplicate question"
NOT_AGAINST_THE_SET = (DUPLICATE, "empty question", "empty answer", thinking.FORBIDDEN)
"""Reasons that do not count for ``instructions.max_rejected``."""
ALL_WRONG = 100
"""When the first records are all rejected, this many of them are enough to stop."""


class Instructions(NamedTuple):
    """An instruction set as read: its rows in the set's order, what was rejected, and counts of what was left out."""

    rows: list[InstructionRow]
    rejects: list[RejectRow]
    notes: Counter[str]


class HeldOutSplit(NamedTuple):
    """Training rows and held-out rows, each in the order of the set."""

    train: list[InstructionRow]
    held_out: list[InstructionRow]


def read_instructions(config: InstructionsConfig) -> Instructions:
    """Read an instruction set and leave out repeated questions.

    A question that was seen before is a duplicate whatever its answer: with two answers it could stand in the training
    set and among the held-out questions. A record that cannot be used is rejected with its place and the reason; raises
    SdrrlError where these are more than ``max_rejected`` of all, or all of the first ones.
    """
    rows: list[InstructionRow] = []
    rejects: list[RejectRow] = []
    notes: Counter[str] = Counter()
    first_place: dict[str, str] = {}
    bad: list[Skipped] = []
    total = 0
    for total, found in enumerate(read_examples(config.path, reading(config)), 1):
        if isinstance(found, Skipped):
            rejects.append({"key": content_key("skipped", found.where), "reason": found.reason, "detail": found.where})
            bad += [] if found.wanted else [found]
            if len(bad) == total == ALL_WRONG:  # the set is of another kind than the configuration says
                break
            continue
        notes.update(found.notes)
        key = content_key("instruction", found.question, found.answer)
        seen = " ".join(found.question.casefold().split())
        if seen in first_place:
            detail = f"{found.where} repeats the question of {first_place[seen]}"
            rejects.append({"key": key, "reason": DUPLICATE, "detail": detail, "question": found.question})
            continue
        first_place[seen] = found.where
        rows.append({"key": key, "question": found.question, "answer": found.answer})
    _require_share(config, total, bad)
    if not rows:
        raise SdrrlError(f"{config.path}: no instruction in this file")
    return Instructions(rows, rejects, notes)


def reading(config: InstructionsConfig) -> Reading:
    """How the records of a set become questions and answers."""
    return Reading(
        format=config.format,
        fields=config.fields,
        split=config.split,
        drop_empty=config.drop_empty,
        keep_system=False,
        most=1,
        max_characters=config.max_characters,
        thinking=config.thinking,
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
    nothing; ``limit`` keeps that many training rows, chosen the same way.
    """
    if held_out >= len(rows):
        raise SdrrlError(f"instructions.held_out: {held_out} of {len(rows)} questions leaves none for training")
    ranked = sorted((row["key"] for row in rows), key=lambda key: (derive_seed(seed, "held-out", key), key))
    held = set(ranked[:held_out])
    train = set(ranked[held_out:] if limit is None else ranked[held_out : held_out + limit])
    return HeldOutSplit([r for r in rows if r["key"] in train], [r for r in rows if r["key"] in held])


class Ingest(Stage[NoRow, InstructionRow]):
    """Reads D and marks each row ``train`` or ``held-out``."""

    name = "ingest"

    def __init__(self, config: InstructionsConfig, sha256: str, seed: int) -> None:
        self.config, self.sha256, self.seed = config, sha256, seed

    def settings(self) -> Any:
        section = without_later(self.config)
        section.pop("max_rejected", None)  # it decides whether the run goes on, not what the rows are
        return {**section, "path": self.sha256, "seed": self.seed}

    def process(self, rows: list[NoRow]) -> Outcome[InstructionRow]:
        found, rejects, notes = read_instructions(self.config)
        train, held = split_held_out(found, self.config.held_out, self.config.limit, self.seed)
        chosen = [*_marked(train, "train"), *_marked(held, "held-out")]
        dropped = Counter(r["reason"] for r in rejects)
        beyond = len(found) - len(chosen)
        if beyond:
            dropped["beyond instructions.limit"] = beyond
        notes |= Counter({"training": len(train), "held out": len(held)})
        return Outcome(chosen, len(found) + len(rejects), len(chosen), rejects, dropped, notes)


def _marked(rows: list[InstructionRow], split: Split) -> list[InstructionRow]:
    return [{**row, "split": split} for row in rows]
