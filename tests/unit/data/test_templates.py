"""Table 1, word for word, and the random split."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sdrrl_nemo.data.templates import completion_question, random_prefix, translation_question


def test_table_1() -> None:
    assert translation_question("The quick brown fox.", "eng", "ind") == (
        "Translate the following sentence from English to Indonesian.\nThe quick brown fox."
    )
    assert completion_question("Sang rubah cokelat cepat", "ind") == (
        "Complete the following sentence in Indonesian according to its context.\nSang rubah cokelat cepat"
    )


def test_split_is_uniform_over_word_positions() -> None:
    rng = random.Random(0)
    n = 8000
    prefixes = Counter(random_prefix("um  dois três, quatro cinco.", "por", rng) for _ in range(n))
    assert set(prefixes) == {"um", "um  dois", "um  dois três,", "um  dois três, quatro"}
    assert all(abs(c - n / 4) < 5 * (n * 3 / 16) ** 0.5 for c in prefixes.values())


@pytest.mark.parametrize(("code", "text"), [("jpn", "猫が好きです"), ("tha", "สวัสดีครับ"), ("khm", "សួស្តីអ្នក")])
def test_languages_without_spaces_split_between_characters(code: str, text: str) -> None:
    seen = {random_prefix(text, code, random.Random(i)) for i in range(300)}
    assert None not in seen
    for prefix in seen:
        assert prefix is not None
        assert text.startswith(prefix)
        assert 0 < len(prefix) < len(text)
        assert not is_mark(text[len(prefix)]), "a mark was torn from its letter"
    assert len(seen) > 2


def is_mark(character: str) -> bool:
    import unicodedata

    return unicodedata.category(character) in {"Mn", "Mc", "Me"}


def test_nothing_to_split() -> None:
    assert random_prefix("Sim.", "por", random.Random(0)) is None
    assert random_prefix("猫", "jpn", random.Random(0)) is None
