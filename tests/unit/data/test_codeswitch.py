"""Eq. 5: which tokens are switched, how often, and how they look afterwards."""

from __future__ import annotations

import random
from collections import Counter

from sdrrl_nemo.data.codeswitch import code_switch, invert, match_case

WORDS = {"house": ["casa"], "water": ["água", "aguar"], "don't": ["não"], "well-known": ["conhecido"]}


def test_probability_one_switches_every_known_token_and_nothing_else() -> None:
    text, replaced, found = code_switch(
        "The House has WATER; don't  touch\twell-known (house)!", WORDS, 1.0, random.Random(0)
    )
    assert (replaced, found) == (5, 5)
    assert text in {f"The Casa has {w}; não  touch\tconhecido (casa)!" for w in ("ÁGUA", "AGUAR")}


def test_probability_zero_and_unknown_words_change_nothing() -> None:
    sentence = "A housekeeper waters the plants: house2house."
    assert code_switch(sentence, WORDS, 0.0, random.Random(0))[0] == sentence
    assert code_switch(sentence, WORDS, 1.0, random.Random(0)) == (sentence, 0, 0)


def test_rate_is_p_and_translations_are_uniform() -> None:
    """100,000 draws: 0.15 within five standard deviations; both translations equally often, likewise."""
    n, p = 100_000, 0.15
    text, replaced, found = code_switch("water " * n, WORDS, p, random.Random(1))
    assert found == n
    assert abs(replaced - n * p) < 5 * (n * p * (1 - p)) ** 0.5
    words = Counter(text.split())
    assert words["água"] + words["aguar"] == replaced
    assert abs(words["água"] - replaced / 2) < 5 * (replaced / 4) ** 0.5


def test_case() -> None:
    assert match_case("Water", "água") == "Água"
    assert match_case("WATER", "água") == "ÁGUA"
    assert match_case("I", "eu") == "Eu"
    assert match_case("water", "Wasser") == "Wasser"


def test_inverse_dictionary() -> None:
    inverse = invert({"house": ["casa", "lar"], "home": ["casa", "em casa"], "Big": ["Grande"]})
    assert inverse == {"casa": ["home", "house"], "grande": ["Big"], "lar": ["house"]}
