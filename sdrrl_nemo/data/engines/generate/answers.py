"""What generators share that know whether an answer is finished: what becomes of one that is not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.engines.base import Answer, Generator
from sdrrl_nemo.data.rows import Message
from sdrrl_nemo.data.text.conversation import user
from sdrrl_nemo.data.text.sentence_ends import trim_unfinished

UNFINISHED = ("drop", "trim", "keep")


def settle(answer: Answer, unfinished: str) -> str:
    """The text to keep: all of it, up to its last complete sentence or line, or '' (``keep``, ``trim``, ``drop``)."""
    if answer.finished or unfinished == "keep":
        return answer.text
    return "" if unfinished == "drop" else trim_unfinished(answer.text)


class TellingGenerator(Generator):
    """A generator that knows of each answer whether the model ended it; ``unfinished`` says what becomes of the others.

    Training closes every answer with the token that ends a turn, so one that was cut would teach the model to stop in
    the middle of a sentence: they are dropped unless asked otherwise.
    """

    unfinished: str = "drop"

    @abstractmethod
    def answers_to(self, conversations: Sequence[Sequence[Message]]) -> list[Answer]:
        """The answers as they were generated, the unfinished ones whole."""

    def answer(self, questions: Sequence[str]) -> list[Answer]:
        """:meth:`answers_to` single questions."""
        return self.answers_to([[user(question)] for question in questions])

    def settled(self, answer: Answer) -> str:
        return settle(answer, self.unfinished)

    def generate(self, questions: Sequence[str]) -> list[str]:
        return [self.settled(answer) for answer in self.answer(questions)]

    def converse(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        return [self.settled(answer) for answer in self.answers_to(conversations)]


def check_unfinished(where: str, unfinished: str) -> str:
    """The option, if it is one of `UNFINISHED`; else a SdrrlError that begins with ``where``."""
    if unfinished not in UNFINISHED:
        raise SdrrlError(f"{where}: unfinished '{unfinished}' is unknown{suggest(unfinished, UNFINISHED)}")
    return unfinished
