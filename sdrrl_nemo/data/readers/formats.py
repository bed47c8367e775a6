"""Questions and answers of a record, in the shapes that instruction sets have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.readers import turns
from sdrrl_nemo.data.readers.records import Broken, Record, records
from sdrrl_nemo.data.readers.values import Unusable, text_of, weight_of
from sdrrl_nemo.data.text import thinking

FIELDS = {
    "alpaca": {
        "instruction": "instruction",
        "input": "input",
        "output": "output",
        "system": "system",
        "history": "history",
    },
    "sharegpt": {"conversations": "conversations", "from": "from", "value": "value", "system": "system"},
    "messages": {"messages": "messages", "role": "role", "content": "content", "system": "system"},
}
"""Format -> the names its fields have unless ``instructions.fields`` says otherwise."""
FORMATS = ("auto", *FIELDS)
LOOK_AHEAD = 1000
"""Records at the beginning that may be broken before the format of the set counts as unknown."""


@dataclass(frozen=True)
class Example:
    """A question with its answer, the last of a conversation where it is one; ``where`` is its place in the file,
    ``notes`` what was left out of it or changed in it."""

    where: str
    question: str
    answer: str
    notes: tuple[str, ...] = ()
    system: str = ""
    earlier: tuple[tuple[str, str], ...] = ()
    """The questions with their answers that stand before the last, in order."""
    weight: float = 1.0
    """What the record counts against others of its subset."""


@dataclass(frozen=True)
class Skipped:
    """A record that has no question and answer to take.

    ``reason`` says why, in the same words for all alike; ``hint`` goes on with what is special here. ``wanted``: the
    configuration asks for it to be left out (``drop_empty``, ``thinking: forbid``), which says nothing against the set.
    """

    where: str
    reason: str
    hint: str = ""
    wanted: bool = False


@dataclass(frozen=True)
class Reading:
    """How a set is read; keys of the same names in InstructionsConfig and TurnsConfig."""

    format: str = "auto"
    fields: Mapping[str, str] = field(default_factory=dict)
    split: str = "train"
    drop_empty: bool = False
    keep_system: bool = True
    most: int | None = None
    max_characters: int = 1_000_000
    thinking: str = "strip"
    weight: str = "weight"


def join_alpaca(instruction: str, context: str) -> str:
    """The question of one Alpaca row: the instruction, and on the next line its input where there is one.

    This is how Alpaca rows become a chat turn in LLaMA-Factory, whose settings the paper follows; Alpaca's own
    ``### Instruction`` headings would be a second template inside the model's chat template. Where one of the two is
    empty the other is the question.
    """
    return "\n".join(part for part in (instruction.strip(), context.strip()) if part)


def read_examples(path: str | Path, reading: Reading | None = None) -> Iterator[Example | Skipped]:
    """Questions and answers of an instruction set, in its order.

    ``auto`` looks at the first record that has the fields of a format. ``fields`` renames: ``{instruction: prompt}``
    reads the instruction from the field ``prompt``. A record that cannot be used is Skipped; so is one with an empty
    question or answer (Alpaca has 28 empty answers). SdrrlError names the file where the file as a whole cannot be
    read, and where no format fits its first records.
    """
    reading = reading or Reading()
    shape = None if reading.format == "auto" else (reading.format, _renamed(reading.format, reading))
    waiting: list[tuple[str, Record | Broken]] = []
    for where, record in records(path, reading.split):
        if shape is None:
            waiting.append((where, record))
            shape = None if isinstance(record, Broken) else _shape(record, reading)
            if shape is None and len(waiting) < LOOK_AHEAD:
                continue
            if shape is None:
                raise _unknown(waiting, reading)
            yield from (_example(*item, *shape, reading) for item in waiting)
        else:
            yield _example(where, record, *shape, reading)
    if shape is None and waiting:
        raise _unknown(waiting, reading)


def _shape(record: Record, reading: Reading) -> tuple[str, dict[str, str]] | None:
    """(format, its field names) of a set where this record has them; None where it fits none, or several."""
    has = _fitting(record, reading.fields)
    return (has[0], _renamed(has[0], reading)) if len(has) == 1 else None


def _renamed(format: str, reading: Reading) -> dict[str, str]:
    """The names of a format's fields; SdrrlError where ``instructions.fields`` renames one that it has not."""
    unknown = sorted(set(reading.fields) - set(FIELDS[format]))
    if unknown:
        hint = suggest(unknown[0], FIELDS[format])
        raise SdrrlError(f"instructions.fields: format '{format}' has no field '{unknown[0]}'{hint}")
    return {**FIELDS[format], **reading.fields}


def _fitting(record: Record, renamed: Mapping[str, str]) -> list[str]:
    """The formats that a record may be of, by the name of their first field; Alpaca also by input and output."""
    firsts = {name: next(iter(names)) for name, names in FIELDS.items()}
    has = [name for name, first in firsts.items() if renamed.get(first, first) in record]
    if not has and {renamed.get(name, name) for name in ("input", "output")} <= set(record):
        return ["alpaca"]
    return has


def _unknown(waiting: list[tuple[str, Record | Broken]], reading: Reading) -> SdrrlError:
    """The sentence for a set whose format nobody can tell: that of its first record that could be read at all."""
    where, first = next((item for item in waiting if not isinstance(item[1], Broken)), waiting[0])
    if isinstance(first, Broken):
        return SdrrlError(f"{where}: {first.reason}{first.hint}")
    fits = " and ".join(_fitting(first, reading.fields)) or "none"
    return SdrrlError(
        f"{where}: the fields {', '.join(sorted(map(str, first)))} fit {fits} of the formats {', '.join(FIELDS)}; set "
        "instructions.format, and instructions.fields if they have other names"
    )


def _example(
    where: str, record: Record | Broken, format: str, names: dict[str, str], reading: Reading
) -> Example | Skipped:
    if isinstance(record, Broken):
        return Skipped(where, record.reason, record.hint)
    notes: list[str] = []
    try:
        if format == "alpaca":
            found = _alpaca(record, names, reading, notes)
        else:
            keys = turns.Names(*(names[key] for key in FIELDS[format]))
            found = turns.conversation(record, keys, reading.keep_system, reading.most, notes)
        checked = _checked(where, found, reading, notes)
        weight = weight_of(record.get(reading.weight), reading.weight) if reading.weight else 1.0
        return replace(checked, weight=weight) if isinstance(checked, Example) and weight != 1.0 else checked
    except Unusable as e:
        return Skipped(", ".join(filter(None, (where, e.inside))), e.reason, e.hint)


def _optional(record: Mapping[str, Any], name: str, notes: list[str]) -> str:
    return "" if record.get(name) is None else text_of(record[name], name, notes)


def _alpaca(record: Record, names: Mapping[str, str], reading: Reading, notes: list[str]) -> turns.Conversation:
    context = _optional(record, names["input"], notes)
    # Some sets have rows, or a whole file, with the question in input and no instruction.
    only_input = context.strip() and record.get(names["instruction"]) is None
    instruction = "" if only_input else text_of(turns.field(record, names["instruction"]), names["instruction"], notes)
    answer = text_of(turns.field(record, names["output"]), names["output"], notes).strip()
    system = _optional(record, names["system"], notes).strip() if reading.keep_system else ""
    if not reading.keep_system and record.get(names["system"]):
        notes.append(turns.SYSTEM_TURN)
    exchanges = [*_history(record.get(names["history"]), names["history"], notes)]
    exchanges.append((join_alpaca(instruction, context), answer))
    if reading.most is not None and len(exchanges) > reading.most:
        notes.append(turns.LATER_TURNS)
        exchanges = exchanges[: reading.most]
    return turns.Conversation(system, exchanges)


def _history(value: Any, name: str, notes: list[str]) -> Iterator[tuple[str, str]]:
    """The earlier exchanges of an Alpaca row as LLaMA-Factory has them: ``[[question, answer], ...]``."""
    if value is None or value in ("", "[]"):  # tables say so that there is none
        return
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise Unusable(f"field '{name}' must be a list of [question, answer]")
    for i, (question, answer) in enumerate(value, 1):
        where = f"{name}[{i}]"
        yield text_of(question, where, notes).strip(), text_of(answer, where, notes).strip()


def _checked(where: str, found: turns.Conversation, reading: Reading, notes: list[str]) -> Example | Skipped:
    """The example without thoughts in its answers, where none of its texts is empty and all together are not too
    long."""
    size = len(found.system) + sum(len(text) for exchange in found.exchanges for text in exchange)
    if size > reading.max_characters:
        return Skipped(where, "longer than instructions.max_characters", f" ({size:,}, {reading.max_characters:,} may)")
    exchanges: list[tuple[str, str]] = []
    for question, given in found.exchanges:
        (answer, blocks), reason = thinking.settle(given, reading.thinking)
        if reason:
            return Skipped(where, reason, wanted=reason == thinking.FORBIDDEN)
        notes += [thinking.NOTES.get(reading.thinking, "")] * blocks
        exchanges.append((question, answer))
        if not question or not answer:
            what = "answer" if question else "question"
            if reading.drop_empty:
                return Skipped(where, f"empty {what}", wanted=True)
            return Skipped(
                where, f"the {what} is empty", "; fill it in, remove it, or set instructions.drop_empty=true"
            )
    *earlier, (question, answer) = exchanges
    return Example(where, question, answer, tuple(notes), found.system, tuple(earlier))
