"""Instruction sets in Alpaca's JSON Lines: read, check, drop duplicates, split into training and held-out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key, read_jsonl
from sdrrl_nemo.common.seeding import derive_seed

Row = dict[str, Any]


def join_alpaca(instruction: str, context: str) -> str:
    """The question of one Alpaca row: the instruction, and on the next line its input where there is one.

    This is how Alpaca rows become a chat turn in LLaMA-Factory, whose settings the paper follows; Alpaca's own
    ``### Instruction`` headings would be a second template inside the model's chat template.
    """
    return f"{instruction.strip()}\n{context.strip()}" if context.strip() else instruction.strip()


def _text(row: Row, name: str, where: str, required: bool) -> str:
    value = row.get(name, "")
    if not isinstance(value, str):
        raise SdrrlError(f"{where}: field '{name}' must be a text, found {type(value).__name__}")
    if required and not value.strip():
        what = "answer (field 'output')" if name == "output" else f"field '{name}'"
        raise SdrrlError(f"{where}: the {what} is empty; fill it in or remove the line")
    return value


def read_instructions(path: str | Path) -> tuple[list[Row], list[Row]]:
    """(rows {key, question, answer}, rejects {key, reason, ...}) of an Alpaca JSONL file, in file order.

    A question that was seen before is a duplicate whatever its answer: with two answers it could stand in the training
    set and among the held-out questions. Raises SdrrlError that names file and line for a broken line, a field that is
    no text, an empty instruction or an empty answer.
    """
    rows: list[Row] = []
    rejects: list[Row] = []
    first_line: dict[str, int] = {}
    for n, raw in read_jsonl(path):
        where = f"{path}, line {n}"
        question = join_alpaca(_text(raw, "instruction", where, True), _text(raw, "input", where, False))
        answer = _text(raw, "output", where, True).strip()
        key = content_key("instruction", question, answer)
        seen = " ".join(question.casefold().split())
        if seen in first_line:
            detail = f"line {n} repeats the question of line {first_line[seen]}"
            rejects.append({"key": key, "reason": "duplicate question", "detail": detail, "question": question})
            continue
        first_line[seen] = n
        rows.append({"key": key, "question": question, "answer": answer})
    if not rows:
        raise SdrrlError(f"{path}: no instruction in this file")
    return rows, rejects


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
