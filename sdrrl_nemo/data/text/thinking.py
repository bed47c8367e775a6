"""Thoughts that a reasoning model writes before its answer: ``<think>…</think>`` and its relatives.

Training on them would teach them, and a translator would translate them. What counts as a thought:

- a block whose opening tag begins or ends a line outside of a code block, to its closing tag, or to the end of the text
  where generation was cut before that;
- everything up to a closing tag without an opening one: some chat templates put ``<think>`` into the prompt.

A tag in quotes or backticks is a word of the text, and so is a pair that begins in the middle of a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MODES = ("strip", "keep", "forbid")
FORBIDDEN, NOTHING_ELSE = "thinking, which is forbidden", "nothing but thinking"
"""Reasons to reject an answer."""
NOTES = {"strip": "blocks of thinking taken out", "keep": "blocks of thinking kept"}
"""Mode -> what the statistics count."""
TAGS = (
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3, QwQ, SmolLM3
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
)
_QUOTES = frozenset("`'\"“”‘’«»")
_TAG = re.compile("|".join(re.escape(tag) for pair in TAGS for tag in pair), re.IGNORECASE)
_PLACE = {tag.lower(): (kind, side) for kind, pair in enumerate(TAGS) for side, tag in enumerate(pair)}
_OPEN = 0


class Answer(NamedTuple):
    """A text without its thoughts, and how many blocks of them were taken out."""

    text: str
    blocks: int


def without_thoughts(text: str) -> Answer:
    """``text`` without thoughts, and stripped; unchanged where it has none."""
    kept, rest, blocks = "", text, 0
    while tag := next(_tags(rest, 0), None):
        kind, side = _PLACE[tag[0].lower()]
        before = kept + rest[: tag.start()]
        if side != _OPEN:
            kept, rest, blocks = "", rest[tag.end() :], blocks + 1
            continue
        end = _closing(rest, kind, tag.end())
        if _begins_a_block(before, rest[tag.end() : tag.end() + 1]):
            kept, rest, blocks = before, rest[end:], blocks + 1
        else:
            kept, rest = before + rest[tag.start() : end], rest[end:]
    return Answer((kept + rest).strip(), blocks) if blocks else Answer(text, 0)


def _tags(text: str, start: int) -> Iterator[re.Match[str]]:
    """The tags in ``text`` from ``start`` on that nobody quotes."""
    return (tag for tag in _TAG.finditer(text, start) if not _quoted(text, tag))


def _quoted(text: str, tag: re.Match[str]) -> bool:
    if {text[tag.start() - 1 : tag.start()], text[tag.end() : tag.end() + 1]} <= _QUOTES:
        return True
    line = text.rfind("\n", 0, tag.start()) + 1
    after = text[tag.end() :].partition("\n")[0]
    return text.count("`", line, tag.start()) % 2 == 1 and "`" in after


def _closing(text: str, kind: int, start: int) -> int:
    """Where the block ends that was opened before ``start``: the first closing tag, as vLLM's parsers have it."""
    ends = (tag.end() for tag in _tags(text, start) if _PLACE[tag[0].lower()] == (kind, 1))
    return next(ends, len(text))


def _begins_a_block(before: str, after: str) -> bool:
    in_code = before.count("```") % 2 == 1
    return not in_code and (after == "\n" or not before.rpartition("\n")[2].strip())


def settle(text: str, mode: str) -> tuple[Answer, str | None]:
    """(the answer to keep, reason to reject it) under ``strip``, ``keep`` or ``forbid``; blocks are counted always."""
    answer = without_thoughts(text)
    if not answer.blocks or mode == "keep":
        return Answer(text, answer.blocks), None
    if mode == "forbid":
        return answer, FORBIDDEN
    return answer, None if answer.text else NOTHING_ELSE
