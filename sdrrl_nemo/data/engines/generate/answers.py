"""What every generator shares: one answer, and what becomes of one that was cut at the token limit."""

from __future__ import annotations

from dataclasses import dataclass

from sdrrl_nemo.data.text.sentence_ends import trim_unfinished

UNFINISHED = ("keep", "trim", "drop")


@dataclass(frozen=True)
class Answer:
    """One generated answer; ``finished`` is False when it was cut at the token limit; ``tokens`` it took."""

    text: str
    finished: bool
    tokens: int


def settle(answer: Answer, unfinished: str) -> str:
    """The text to keep: all of it, up to its last complete sentence or line, or '' (``keep``, ``trim``, ``drop``)."""
    if answer.finished or unfinished == "keep":
        return answer.text
    return "" if unfinished == "drop" else trim_unfinished(answer.text)
