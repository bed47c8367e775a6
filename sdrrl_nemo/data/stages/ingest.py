"""The instruction set D: read, check, drop duplicates, split into training and held-out."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.seeding import derive_seed
from sdrrl_nemo.data.config import InstructionsConfig
from sdrrl_nemo.data.execution.stage_runner import Outcome, Row, Stage
from sdrrl_nemo.data.readers import Skipped, read_examples


def read_instructions(config: InstructionsConfig) -> tuple[list[Row], list[Row], Counter[str]]:
    """(rows {key, question, answer}, rejects {key, reason, ...}, counts of what was left out), in the set's order.

    A question that was seen before is a duplicate whatever its answer: with two answers it could stand in the training
    set and among the held-out questions. Raises SdrrlError that names file and line for a broken line, a field that is
    no text, an empty question or an empty answer (``drop_empty`` rejects these instead).
    """
    rows: list[Row] = []
    rejects: list[Row] = []
    notes: Counter[str] = Counter()
    first_place: dict[str, str] = {}
    examples = read_examples(config.path, config.format, config.fields, config.split, config.drop_empty)
    for found in examples:
        if isinstance(found, Skipped):
            rejects.append({"key": content_key("skipped", found.where), "reason": found.reason, "detail": found.where})
            continue
        notes.update(found.notes)
        key = content_key("instruction", found.question, found.answer)
        seen = " ".join(found.question.casefold().split())
        if seen in first_place:
            detail = f"{found.where} repeats the question of {first_place[seen]}"
            rejects.append({"key": key, "reason": "duplicate question", "detail": detail, "question": found.question})
            continue
        first_place[seen] = found.where
        rows.append({"key": key, "question": found.question, "answer": found.answer})
    if not rows:
        raise SdrrlError(f"{config.path}: no instruction in this file")
    return rows, rejects, notes


def split_held_out(rows: list[Row], held_out: int, limit: int | None, seed: int) -> tuple[list[Row], list[Row]]:
    """(training rows, held-out rows), each in the order of ``rows``.

    Who is held out follows from the row's key and the seed, so adding rows elsewhere or reordering the file moves
    nothing; ``limit`` keeps that many training rows, chosen the same way.
    """
    if held_out >= len(rows):
        raise SdrrlError(f"instructions.held_out: {held_out} of {len(rows)} questions leaves none for training")
    ranked = sorted((row["key"] for row in rows), key=lambda key: (derive_seed(seed, "held-out", key), key))
    held = set(ranked[:held_out])
    train = set(ranked[held_out:] if limit is None else ranked[held_out : held_out + limit])
    return [r for r in rows if r["key"] in train], [r for r in rows if r["key"] in held]


class Ingest(Stage):
    """Reads D and marks each row ``train`` or ``held-out``."""

    name = "ingest"

    def __init__(self, config: InstructionsConfig, sha256: str, seed: int) -> None:
        self.config, self.sha256, self.seed = config, sha256, seed

    def settings(self) -> Any:
        return {**asdict(self.config), "path": self.sha256, "seed": self.seed}

    def process(self, rows: list[Row]) -> Outcome:
        found, rejects, notes = read_instructions(self.config)
        train, held = split_held_out(found, self.config.held_out, self.config.limit, self.seed)
        chosen = [{**r, "split": "train"} for r in train] + [{**r, "split": "held-out"} for r in held]
        dropped = Counter(r["reason"] for r in rejects)
        beyond = len(found) - len(chosen)
        if beyond:
            dropped["beyond instructions.limit"] = beyond
        notes |= Counter({"training": len(train), "held out": len(held)})
        return Outcome(chosen, len(found) + len(rejects), len(chosen), rejects, dropped, notes)
