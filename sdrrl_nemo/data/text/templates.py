"""Instruction texts: Table 1 of the paper (D_mt, D_comp), and the request for an answer in another language."""

from __future__ import annotations

import random
import re
import unicodedata
from functools import lru_cache

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.text.languages import LANGUAGES, language
from sdrrl_nemo.data.text.wordings import WORDINGS, complete_instruction, named_in, translate_instruction
from sdrrl_nemo.data.text.words import graphemes, tokenize

INSTRUCTION_LANGUAGES = ("english", "target")
SPLITS = ("auto", "words", "characters")


def instruction_code(option: str, target: str) -> str:
    """ISO 639-3 code of Table 1's instructions: ``english`` as in the paper, or ``target``, the pair's target."""
    if option not in INSTRUCTION_LANGUAGES:
        raise SdrrlError(f"instruction_language: unknown value '{option}'{suggest(option, INSTRUCTION_LANGUAGES)}")
    return "eng" if option == "english" else language(target).code


def translation_question(sentence: str, source: str, target: str, instruction: str = "eng") -> str:
    """Table 1, first half; languages by their ISO 639-3 codes, ``instruction`` that of the request itself."""
    return f"{translate_instruction(source, target, instruction)}\n{sentence}"


def completion_question(prefix: str, target: str, instruction: str = "eng") -> str:
    """Table 1, second half; the answer is the whole sentence."""
    return f"{complete_instruction(target, instruction)}\n{prefix}"


def answer_language_request(question: str, answer_language: str) -> str:
    """The question with a last line that asks for the answer's language, in English like Table 1's instructions."""
    return f"{question}\n{_answer_request(answer_language)}"


def _answer_request(code: str) -> str:
    return f"Answer in {language(code).name}."


@lru_cache(maxsize=1)
def _template_lines() -> frozenset[str]:
    lines = {_answer_request(code) for code in LANGUAGES}
    for instruction in WORDINGS:
        named = named_in(instruction)
        lines |= {complete_instruction(code, instruction) for code in named}
        lines |= {translate_instruction(a, b, instruction) for a in named for b in named if a != b}
    return frozenset(lines)


def template_spans(text: str) -> list[tuple[int, int]]:
    """Spans of the lines of ``text`` that are instructions of this module, for code-switching to leave alone."""
    return [m.span() for m in re.finditer(r"[^\n]+", text) if m.group().strip() in _template_lines()]


def random_prefix(sentence: str, code: str, rng: random.Random, split: str = "auto") -> str | None:
    """Beginning of ``sentence`` up to a random position: after part k of n, k uniform in 1..n-1; None where n < 2.

    ``split``: parts are ``words`` (with the punctuation that closes them) or ``characters`` as a reader sees them,
    so that no mark is torn from its letter; ``auto`` takes words where the language writes spaces, else characters.
    """
    if split not in SPLITS:
        raise SdrrlError(f"split: unknown value '{split}'{suggest(split, SPLITS)}")
    spaces = language(code).spaces
    if split == "characters" or (split == "auto" and not spaces):
        ends = [b for a, b in graphemes(sentence) if not sentence[a:b].isspace()]
    elif spaces:
        ends = [m.end() for m in re.finditer(r"\S+", sentence)]
    else:
        ends = _unspaced_ends(sentence, code)
    if len(ends) < 2:
        return None
    return sentence[: ends[rng.randrange(len(ends) - 1)]]


def _unspaced_ends(sentence: str, code: str) -> list[int]:
    """Ends of the words with their closing punctuation; an opening bracket goes with the word that follows it.

    A word end inside a visible character (rare: ICU cuts after a bare mark) is no place to split.
    """
    spans = tokenize(sentence, code)
    borders = {b for _, b in graphemes(sentence)}
    starts = [a for a, _ in spans[1:]] + [len(sentence)]
    ends = []
    for (_, word_end), following in zip(spans, starts, strict=True):
        end = word_end
        while end < following and unicodedata.category(sentence[end]) in {"Pe", "Pf", "Po", "Mn", "Mc"}:
            end += 1
        if end in borders:
            ends.append(end)
    return ends
