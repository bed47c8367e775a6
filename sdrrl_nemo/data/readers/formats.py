"""Question and answer of a record, in the shapes that instruction sets have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.readers.records import Record, records

FIELDS = {
    "alpaca": {"instruction": "instruction", "input": "input", "output": "output"},
    "sharegpt": {"conversations": "conversations", "from": "from", "value": "value"},
    "messages": {"messages": "messages", "role": "role", "content": "content"},
}
"""Format -> the names its fields have unless ``instructions.fields`` says otherwise."""
FORMATS = ("auto", *FIELDS)
USERS = {"user", "human"}
ASSISTANTS = {"assistant", "gpt", "chatgpt", "bing", "bard"}
SYSTEMS = {"system"}


@dataclass(frozen=True)
class Example:
    """One question with its answer; ``where`` is its place in the file, ``notes`` what was left out of it."""

    where: str
    question: str
    answer: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """A record that has no question and answer to take; ``reason`` says why."""

    where: str
    reason: str


def join_alpaca(instruction: str, context: str) -> str:
    """The question of one Alpaca row: the instruction, and on the next line its input where there is one.

    This is how Alpaca rows become a chat turn in LLaMA-Factory, whose settings the paper follows; Alpaca's own
    ``### Instruction`` headings would be a second template inside the model's chat template.
    """
    return f"{instruction.strip()}\n{context.strip()}" if context.strip() else instruction.strip()


def read_examples(
    path: str | Path,
    format: str = "auto",
    fields: Mapping[str, str] | None = None,
    split: str = "train",
    drop_empty: bool = False,
) -> Iterator[Example | Skipped]:
    """Questions and answers of an instruction set, in its order.

    ``auto`` looks at the first record. ``fields`` renames: ``{instruction: prompt}`` reads the instruction from the
    field ``prompt``. Of a conversation the first question and its answer are taken; system turns and later turns are
    counted as left out. ``drop_empty``: an empty question or answer is skipped (Alpaca has 28 empty answers) and not
    an error. SdrrlError names file, line and key.
    """
    names: dict[str, str] | None = None
    for where, record in records(path, split):
        if names is None:
            format, names = _shape(where, record, format, dict(fields or {}))
        if format == "alpaca":
            found: Example | Skipped = _alpaca(where, record, names)
        else:
            found = _turns(where, record, *_keys(format, names))
        yield _filled(found, drop_empty)


def _shape(where: str, record: Record, format: str, renamed: dict[str, str]) -> tuple[str, dict[str, str]]:
    """(format, its field names) for a file whose first record this is."""
    if format == "auto":
        has = [f for f, names in FIELDS.items() if renamed.get(next(iter(names)), next(iter(names))) in record]
        if len(has) != 1:
            fits = " and ".join(has) if has else "none"
            raise SdrrlError(
                f"{where}: the fields {', '.join(sorted(record))} fit {fits} of the formats {', '.join(FIELDS)}; set "
                "instructions.format, and instructions.fields if they have other names"
            )
        format = has[0]
    unknown = sorted(set(renamed) - set(FIELDS[format]))
    if unknown:
        hint = suggest(unknown[0], FIELDS[format])
        raise SdrrlError(f"instructions.fields: format '{format}' has no field '{unknown[0]}'{hint}")
    return format, {**FIELDS[format], **renamed}


def _keys(format: str, names: Mapping[str, str]) -> tuple[str, str, str]:
    a, b, c = (names[k] for k in FIELDS[format])
    return a, b, c


def _text(record: Mapping[str, Any], name: str, where: str, optional: bool = False) -> str:
    value = record.get(name)
    if value is None and optional:
        return ""
    if value is None:
        raise SdrrlError(f"{where}: field '{name}' is missing{suggest(name, record)}")
    if not isinstance(value, str):
        raise SdrrlError(f"{where}: field '{name}' must be a text, found {type(value).__name__}")
    return value


def _alpaca(where: str, record: Record, names: Mapping[str, str]) -> Example:
    instruction = _text(record, names["instruction"], where)
    question = (
        join_alpaca(instruction, _text(record, names["input"], where, optional=True)) if instruction.strip() else ""
    )
    return Example(where, question, _text(record, names["output"], where).strip())


def _turns(where: str, record: Record, list_name: str, role_name: str, text_name: str) -> Example | Skipped:
    """First question and its answer of a conversation."""
    turns = record.get(list_name)
    if not isinstance(turns, list):
        raise SdrrlError(f"{where}: field '{list_name}' must be a list of turns, found {type(turns).__name__}")
    notes: list[str] = []
    question: str | None = None
    for i, turn in enumerate(turns, 1):
        place = f"{where}, {list_name}[{i}]"
        if not isinstance(turn, dict):
            raise SdrrlError(f"{place}: expected an object, found {type(turn).__name__}")
        role = _text(turn, role_name, place).strip().lower()
        if role in SYSTEMS:
            notes.append("system turn left out")
        elif role in USERS:
            if question is not None:
                return Skipped(where, "two questions before an answer")
            question = _text(turn, text_name, place).strip()
        elif role in ASSISTANTS:
            if question is None:
                continue  # ShareGPT threads can begin in the middle: an answer whose question is not there
            if len(turns) > i:
                notes.append("later turns left out")
            return Example(where, question, _text(turn, text_name, place).strip(), tuple(dict.fromkeys(notes)))
        else:
            return Skipped(where, f"turn of a '{role}'")
    return Skipped(where, "no question with an answer")


def _filled(found: Example | Skipped, drop_empty: bool) -> Example | Skipped:
    if isinstance(found, Skipped) or (found.question and found.answer):
        return found
    what = "question" if not found.question else "answer"
    if drop_empty:
        return Skipped(found.where, f"empty {what}")
    raise SdrrlError(f"{found.where}: the {what} is empty; fill it in, remove it, or set instructions.drop_empty=true")
