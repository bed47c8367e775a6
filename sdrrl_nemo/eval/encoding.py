"""Held-out questions and samples as tokens, by the very functions that tokenise the training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.tokenizer import prompt_text, tokenize


@dataclass(frozen=True)
class Encoded:
    """``tokens``: chat-templated question, answer, end token; the first ``prompt_tokens`` are the question's."""

    tokens: list[int]
    prompt_tokens: int


def encode_questions(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]) -> list[list[int]]:
    """Token ids of each question in the chat template, with the assistant's turn opened."""
    texts = [prompt_text(tokenizer, q) for q in questions]
    ids = tokenizer(texts, add_special_tokens=False, padding=False, truncation=False)["input_ids"]
    return [list(x) for x in ids]


def encode_samples(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], answers: Sequence[str]
) -> list[Encoded]:
    """Question, answer and end token of each sample."""
    return [Encoded(list(ids), prompt) for ids, prompt in tokenize(tokenizer, questions, answers)]


def check_lengths(lengths: Sequence[int], limit: int | None, what: str) -> None:
    """SdrrlError when a text does not fit into the model's positions."""
    if limit is not None and lengths and max(lengths) > limit:
        raise SdrrlError(
            f"{what}: {max(lengths)} tokens do not fit into the model's {limit} positions; shorten the text"
        )
