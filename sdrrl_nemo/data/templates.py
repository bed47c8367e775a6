"""Instruction texts: Table 1 of the paper (D_mt, D_comp), and the request for an answer in another language."""

from __future__ import annotations

import random
import re
import unicodedata

from sdrrl_nemo.data.languages import language


def translation_question(sentence: str, source: str, target: str) -> str:
    """Table 1, first half; languages by their ISO 639-3 codes."""
    return f"Translate the following sentence from {language(source).name} to {language(target).name}.\n{sentence}"


def completion_question(prefix: str, target: str) -> str:
    """Table 1, second half; the answer is the whole sentence."""
    return f"Complete the following sentence in {language(target).name} according to its context.\n{prefix}"


def answer_language_request(question: str, answer_language: str) -> str:
    """The question with a last line that asks for the answer's language, in English like Table 1's instructions."""
    return f"{question}\nAnswer in {language(answer_language).name}."


def _graphemes(text: str) -> list[str]:
    """Characters with the marks that belong to them (Thai vowels, Khmer subscripts)."""
    units: list[str] = []
    for c in text:
        joined = units and (unicodedata.combining(c) or unicodedata.category(c) in {"Mn", "Mc", "Me"} or c in "\u200d")
        after_joiner = units and units[-1][-1] in "\u200d\u17d2"
        if joined or after_joiner:
            units[-1] += c
        else:
            units.append(c)
    return units


def random_prefix(sentence: str, code: str, rng: random.Random) -> str | None:
    """Beginning of ``sentence`` up to a random position: after word k of n, k uniform in 1..n-1.

    Languages without spaces are split between characters instead. None when there is nothing to split.
    """
    if language(code).spaces:
        ends = [m.end() for m in re.finditer(r"\S+", sentence)]
    else:
        ends = []
        position = 0
        for unit in _graphemes(sentence):
            position += len(unit)
            if not unit.isspace():
                ends.append(position)
    if len(ends) < 2:
        return None
    return sentence[: ends[rng.randrange(len(ends) - 1)]]
