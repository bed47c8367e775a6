"""A row as a conversation: a system turn, the earlier exchanges, and the row's own question and answer as the last.

Stages look at every text of a row through `places`, so that what they do to one question and one answer they do to a
whole conversation, turn by turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

from sdrrl_nemo.data.rows import (
    COMPONENTS,
    TARGET,
    Component,
    Exchange,
    History,
    InstructionRow,
    Message,
    TranslatedRow,
)


class Place(NamedTuple):
    """A text of a row: the question or answer of an earlier exchange by its index, or, with None, of the last one."""

    turn: int | None
    component: Component


def history(row: Mapping[str, Any]) -> History:
    """What stands before the row's question; empty for a row of one exchange."""
    return cast(History, {key: row[key] for key in ("system", "earlier") if key in row})


def exchanges(row: Mapping[str, Any]) -> list[Exchange]:
    """All exchanges of a row in order, the row's own question and answer last."""
    return [*row.get("earlier", ()), {"question": row["question"], "answer": row["answer"]}]


def conversation_of(row: Mapping[str, Any]) -> list[Message]:
    """The whole conversation of a row as chat templates take it; it ends with the row's answer."""
    return [*messages_before(row, (e["answer"] for e in exchanges(row)))]


def messages_before(row: Mapping[str, Any], answers: Iterable[str]) -> list[Message]:
    """The conversation of a row with other answers to its questions; of fewer answers than questions, up to the first
    question that none is given to."""
    out: list[Message] = []
    if "system" in row:
        out.append({"role": "system", "content": row["system"]})
    given = iter(answers)
    for exchange in exchanges(row):
        out.append({"role": "user", "content": exchange["question"]})
        answer = next(given, None)
        if answer is None:
            break
        out.append({"role": "assistant", "content": answer})
    return out


def first_exchange(row: InstructionRow) -> InstructionRow:
    """The beginning of a conversation as a row of one exchange, under the same key: what can be asked by itself."""
    first = exchanges(row)[0]
    return {"key": row["key"], "question": first["question"], "answer": first["answer"]}


def questions(row: Mapping[str, Any]) -> str:
    """System turn and all questions as one text: what makes two conversations the same to whoever answers."""
    return "\n".join([*([row["system"]] if "system" in row else ()), *(e["question"] for e in exchanges(row))])


def questions_target(row: TranslatedRow) -> str | None:
    """The same in translation; None where a question's translation is missing."""
    found = [*(e["question"] for e in row.get("earlier_target", ())), row["question_target"]]
    if None in found:
        return None
    return "\n".join([*([row["system"]] if "system" in row else ()), *cast("list[str]", found)])


def places(row: Mapping[str, Any]) -> list[Place]:
    """Every text of a row that is translated, in the order of the conversation."""
    turns: list[int | None] = [*range(len(row.get("earlier", ()))), None]
    return [Place(turn, component) for turn in turns for component in COMPONENTS]


def text_at(row: Mapping[str, Any], place: Place) -> str:
    """The text at a place, in the source language."""
    found: str = (row if place.turn is None else row["earlier"][place.turn])[place.component]
    return found


def target_at(row: TranslatedRow, place: Place) -> str | None:
    """Its translation; None: rejected."""
    if place.turn is None:
        return row[TARGET[place.component]]
    return row["earlier_target"][place.turn][place.component]


def set_target(row: TranslatedRow, place: Place, text: str | None) -> None:
    """Put a translation, or None, in its place; the row must be one of `own_copy`."""
    if place.turn is None:
        row[TARGET[place.component]] = text
    else:
        row["earlier_target"][place.turn][place.component] = text


def own_copy(row: TranslatedRow) -> TranslatedRow:
    """A copy whose translations may be changed without changing ``row``."""
    copy = row.copy()
    if "earlier_target" in row:
        copy["earlier_target"] = [exchange.copy() for exchange in row["earlier_target"]]
    if "earlier_quality" in row:
        copy["earlier_quality"] = [exchange.copy() for exchange in row["earlier_quality"]]
    return copy


def numbered(place: Place) -> dict[str, int]:
    """``{"turn": n}`` for the reject of an earlier exchange; nothing for the last."""
    return {} if place.turn is None else {"turn": place.turn + 1}
