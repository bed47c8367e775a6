"""Code-switching of questions by a bilingual dictionary (paper, section 3.2.3, Eq. 5).

The paper applies it "only to the question components x_i of D_LL, D_TL, D_LT and D_TT" and then trains on those
sets, so the switched question replaces the plain one in all four subsets; answers stay as they are, and D_mt and D_comp
are left alone. Each token that the dictionary knows is replaced with probability p, independently, by one of its
translations, each as likely as the others (as in mRASP's random aligned substitution).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

# A word: letters and digits with inner apostrophes and hyphens; everything between words is kept as it is.
WORD = re.compile(r"\w+(?:['’\-]\w+)*")

Entries = Mapping[str, Sequence[str]]


def match_case(model: str, word: str) -> str:
    """``word`` in the letter case of ``model``: ALL CAPS, Capitalised, or as the dictionary has it."""
    if len(model) > 1 and model.isupper():
        return word.upper()
    if model[:1].isupper():
        return word[:1].upper() + word[1:]
    return word


def invert(entries: Entries) -> dict[str, list[str]]:
    """Target word -> source words, of a source-to-target dictionary; only single-word translations can be looked up."""
    inverse: dict[str, list[str]] = {}
    for word in sorted(entries):
        for translation in entries[word]:
            known = inverse.setdefault(translation.lower(), [])
            if word not in known:
                known.append(word)
    return {word: inverse[word] for word in sorted(inverse) if WORD.fullmatch(word)}


def code_switch(text: str, entries: Entries, probability: float, rng: random.Random) -> tuple[str, int, int]:
    """(switched text, tokens replaced, tokens found in the dictionary); Eq. 5.

    The random number of a token is drawn only where the token is in the dictionary.
    """
    found = replaced = 0

    def swap(match: re.Match[str]) -> str:
        nonlocal found, replaced
        word = match.group()
        translations = entries.get(word.lower())
        if not translations:
            return word
        found += 1
        if rng.random() >= probability:
            return word
        replaced += 1
        return match_case(word, translations[rng.randrange(len(translations))])

    return WORD.sub(swap, text), replaced, found
