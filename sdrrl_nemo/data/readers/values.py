"""One value of a record as the text that training may see, or the reason why it is none."""

from __future__ import annotations

import re
from typing import Any

from sdrrl_nemo.common.errors import one_line

SURROGATE = re.compile("[\ud800-\udfff]")
NUL_NOTE, CRLF_NOTE, PARTS_NOTE = "texts with NUL, removed", "texts with CRLF, now LF", "texts joined of content parts"
"""What the statistics count of texts that were changed on reading."""
LONGEST_NAME = 40
"""Characters of a name out of a file that a reason shows; statistics count by reason."""


class Unusable(Exception):
    """A record that cannot be used. ``reason``: a few words, the same for all alike; ``hint``: what is special here;
    ``inside``: its part of the record, where that is not the whole."""

    def __init__(self, reason: str, hint: str = "", inside: str = "") -> None:
        super().__init__(reason)
        self.reason, self.hint, self.inside = reason, hint, inside


def named(value: Any) -> str:
    """A name out of a file, in quotes and in one line."""
    return f"'{one_line(str(value))[:LONGEST_NAME]}'"


def text_of(value: Any, name: str, notes: list[str]) -> str:
    """``value`` as text, without NUL and with LF alone as line break; what was changed is added to ``notes``.

    Raises Unusable for what is no text, and for half of a surrogate pair, which no file and no tokenizer can hold.
    """
    if value is None:
        raise Unusable(f"field '{name}' is null")
    if not isinstance(value, str):
        raise Unusable(f"field '{name}' must be a text, found {type(value).__name__}")
    if SURROGATE.search(value):
        raise Unusable("half of a surrogate pair", f" in field '{name}', which is no character")
    return tidied(value, notes)


def weight_of(value: Any, name: str) -> float:
    """What a record counts against others: a positive number, or a text that is one, as tables have them; 1 where there
    is none. Raises Unusable for anything else."""
    if value is None or value == "":
        return 1.0
    try:
        weight = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        weight = float("nan")
    if not 0 < weight < float("inf"):
        raise Unusable(f"field '{name}' must be a positive number", f", found {named(value)}")
    return weight


def tidied(text: str, notes: list[str]) -> str:
    """``text`` without NUL, at which libraries in C end a text, and with LF alone as line break."""
    if "\x00" in text:
        notes.append(NUL_NOTE)
        text = text.replace("\x00", "")
    if "\r" in text:
        notes.append(CRLF_NOTE)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def content_of_turn(value: Any, name: str, notes: list[str]) -> str:
    """The text of a turn: a text, or a list of parts ``{"type": "text", "text": ...}``, joined by line breaks.

    vLLM joins them so for models that read text alone. Raises Unusable for every other part, such as an image.
    """
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        return text_of(value, name, notes)
    for part in value:
        if part.get("type") != "text":
            raise Unusable(f"content part of type {named(part.get('type'))}")
    notes.append(PARTS_NOTE)
    return "\n".join(text_of(part.get("text"), "text", notes) for part in value)
