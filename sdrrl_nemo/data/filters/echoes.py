"""Answers that only say their question again."""

from __future__ import annotations

from dataclasses import dataclass

from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair
from sdrrl_nemo.data.text.words import words

LABELS = frozenset(("question", "instruction", "answer", "q", "a", "sure", "certainly"))
"""Words before a repeated question that say nothing either."""


@dataclass(frozen=True)
class AnswerPair(TextPair):
    """An answer judged alone, with its question."""

    question: str = ""


def answer_alone(answer: str, language: str, question: str) -> AnswerPair:
    """What filters look at before an answer is translated."""
    return AnswerPair(answer, answer, language, language, question)


@FILTERS.register("echo")
class Echo(Filter):
    """The answer is its question, or the first line of it, once or several times, and not a word more.

    A part of the question is an answer ("Repeat after me: good morning", "Tea or coffee?"), and so is the question with
    one new word behind it; letter case and punctuation are not compared. Questions of fewer than ``min_words`` words
    pass, and so does a text that is judged without its question.
    """

    def __init__(self, min_words: int = 4) -> None:
        self.min_words = min_words

    def reject(self, pair: TextPair) -> str | None:
        asked = pair.question if isinstance(pair, AnswerPair) else ""
        answer = words(pair.target.lower(), pair.target_language)
        while answer and answer[0] in LABELS:
            answer = answer[1:]
        for text in dict.fromkeys((asked, asked.strip().partition("\n")[0])):
            question = words(text.lower(), pair.source_language)
            if len(question) >= self.min_words and _is_made_of(answer, question):
                return "the answer only says the question again"
        return None


def _is_made_of(answer: list[str], question: list[str]) -> bool:
    """Whether the answer is the question once or more."""
    times, rest = divmod(len(answer), len(question))
    return times > 0 and not rest and answer == question * times
