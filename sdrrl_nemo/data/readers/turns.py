"""The exchanges of a conversation that is a list of turns (ShareGPT, messages)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sdrrl_nemo.common.errors import suggest
from sdrrl_nemo.data.readers.records import Record
from sdrrl_nemo.data.readers.values import Unusable, content_of_turn, named, text_of

USERS = {"user", "human"}
ASSISTANTS = {"assistant", "gpt", "chatgpt", "bing", "bard", "model"}
SYSTEMS = {"system", "developer"}
CALLS = ("tool_calls", "function_call")
"""Fields of an assistant's turn that hold calls of tools."""
LATER_TURNS, SYSTEM_TURN = "later turns left out", "system turn left out"
"""What the statistics count of conversations that were not taken whole."""
NO_TOOLS = ("[]", "{}", "null", "None")
"""How a column of texts says that a conversation has no tools."""


class Names(NamedTuple):
    """What a format calls the list of turns, a turn's role, its text, and a system turn that stands beside the list."""

    turns: str
    role: str
    text: str
    system: str


class Conversation(NamedTuple):
    """A system turn ('' without) and the questions with their answers, in order."""

    system: str
    exchanges: list[tuple[str, str]]


def field(record: Record, name: str) -> Any:
    """The value of a field that must be there."""
    if name not in record:
        raise Unusable(f"field '{name}' is missing", suggest(name, map(str, record)))
    return record[name]


def conversation(record: Record, names: Names, keep_system: bool, most: int | None, notes: list[str]) -> Conversation:
    """The conversation of a record, at most its first ``most`` exchanges; what is left out is added to ``notes``.

    Answers before the first question are left out, for ShareGPT threads can begin in the middle; so is a last question
    without an answer. Raises Unusable where questions and answers do not take turns, and for tools and other roles.
    """
    system = ""
    if keep_system and record.get(names.system) is not None:
        system = text_of(record[names.system], names.system, notes).strip()
    if record.get("tools") and record["tools"] not in NO_TOOLS:
        raise Unusable("tool definitions")
    exchanges: list[tuple[str, str]] = []
    question: str | None = None
    for inside, turn in _turns(record, names):
        if len(exchanges) == most:
            notes.append(LATER_TURNS)
            return Conversation(system, exchanges)
        try:
            role = _role(turn, names)
            if role in SYSTEMS:
                if not keep_system:
                    notes.append(SYSTEM_TURN)
                elif system or exchanges or question is not None:
                    raise Unusable("a second system turn, or one behind the first question")
                else:
                    system = content_of_turn(field(turn, names.text), names.text, notes).strip()
            elif role in USERS:
                if question is not None:
                    raise Unusable("two questions before an answer")
                question = content_of_turn(field(turn, names.text), names.text, notes).strip()
            else:
                answer = _answer(turn, names, notes)
                if question is not None:
                    exchanges.append((question, answer))
                elif exchanges:
                    raise Unusable("two answers to one question")
                question = None
        except Unusable as e:
            raise Unusable(e.reason, e.hint, inside) from None
    if not exchanges:
        raise Unusable("no question with an answer")
    if question is not None:
        notes.append("last question without an answer left out")
    return Conversation(system, exchanges)


def _turns(record: Record, names: Names) -> Iterator[tuple[str, Record]]:
    """(place inside the record, turn)."""
    turns = field(record, names.turns)
    if not isinstance(turns, list):
        raise Unusable(f"field '{names.turns}' must be a list of turns, found {type(turns).__name__}")
    for i, turn in enumerate(turns, 1):
        inside = f"{names.turns}[{i}]"
        if not isinstance(turn, dict):
            raise Unusable(f"expected an object, found {type(turn).__name__}", inside=inside)
        yield inside, turn


def _role(turn: Record, names: Names) -> str:
    role = text_of(field(turn, names.role), names.role, []).strip().lower()
    if role not in USERS | ASSISTANTS | SYSTEMS:
        raise Unusable(f"turn of a {named(role)}")
    return role


def _answer(turn: Record, names: Names, notes: list[str]) -> str:
    if any(turn.get(key) for key in CALLS):
        raise Unusable("tool call")
    # OpenHermes, OpenAI and Axolotl mark so the answers that must not be learned; every answer is supervised here.
    if turn.get("weight") == 0 or turn.get("train") is False:
        raise Unusable("an answer marked as not to be learned (weight 0)")
    return content_of_turn(field(turn, names.text), names.text, notes).strip()
