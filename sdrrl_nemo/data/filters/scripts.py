"""Which script a translation's letters are of, and how many of its characters are letters."""

from __future__ import annotations

import unicodedata
from functools import cache

import regex

from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair, require_share
from sdrrl_nemo.data.filters.lengths import character_width
from sdrrl_nemo.data.text.languages import language

# ISO 15924 code -> how names of its letters begin in the Unicode character database.
SCRIPT_NAMES = {
    "Latn": ("LATIN", "FULLWIDTH LATIN"),
    "Cyrl": ("CYRILLIC",),
    "Hira": ("HIRAGANA",),
    "Kana": ("KATAKANA", "HALFWIDTH KATAKANA"),
    "Hani": ("CJK UNIFIED", "CJK COMPATIBILITY"),
    "Hang": ("HANGUL",),
    "Thai": ("THAI",),
    "Khmr": ("KHMER",),
}


@cache
def _prefixes(code: str) -> tuple[str, ...]:
    return tuple(p for script in language(code).scripts for p in SCRIPT_NAMES[script])


@cache
def _is_of(letter: str, code: str) -> bool:
    return unicodedata.name(letter, "").startswith(_prefixes(code))


def script_share(text: str, code: str) -> float | None:
    """Share of the letters that belong to the language's scripts; None for a text without letters.

    Letters count by their width, so that a name in Latin letters weighs no more in Korean than in English.
    """
    letters = [c for c in text if c.isalpha() and c not in "ー々"]
    total = sum(map(character_width, letters))
    if not total:
        return None
    return sum(character_width(c) for c in letters if _is_of(c, code)) / total


# Letters of a script that has capitals, as a word of their own.
_NAME = regex.compile(r"(?<![\p{Lu}\p{Ll}])(?=\p{Ll}*\p{Lu})[\p{Lu}\p{Ll}]+")


@FILTERS.register("script")
class Script(Filter):
    """Share of the translation's letters, outside code, addresses and the like, that are of the target's script.

    Names in the source's script, words with a capital that the source has too, do not count: Shift in Korean is Shift.
    """

    version = 4

    def __init__(self, minimum: float = 0.6, min_letters: int = 4) -> None:
        require_share("minimum", minimum)
        self.minimum, self.min_letters = minimum, min_letters

    def reject(self, pair: TextPair) -> str | None:
        names = set(_NAME.findall(pair.source_prose)) if not pair.alone else set()
        text = _NAME.sub(lambda m: " " if m.group() in names else m.group(), pair.target_prose)
        share = script_share(text, pair.target_language)
        if share is None or sum(map(str.isalpha, text)) < self.min_letters or share >= self.minimum:
            return None
        return f"{share:.2f} of the letters are of the language's script, fewer than {self.minimum:.2f}"


def letter_share(text: str) -> float | None:
    """Share of letters, with their marks, among the characters that are not white space; None without any."""
    characters = len("".join(text.split()))
    return len(_LETTER.findall(text)) / characters if characters else None


_LETTER = regex.compile(r"[\p{L}\p{M}]")


@FILTERS.register("character_ratio")
class CharacterRatio(Filter):
    """Share of letters that lies more than ``maximum_loss`` below the source's: signs and digits in place of words.

    Looked at outside code, formulas and the like, which have their own share of signs.
    """

    version = 2

    def __init__(self, maximum_loss: float = 0.25, min_characters: int = 8) -> None:
        require_share("maximum_loss", maximum_loss)
        self.maximum_loss, self.min_characters = maximum_loss, min_characters

    def reject(self, pair: TextPair) -> str | None:
        a, b = letter_share(pair.source_prose), letter_share(pair.target_prose)
        short = len(pair.target_prose.strip()) < self.min_characters
        if a is None or b is None or short or a - b <= self.maximum_loss:
            return None
        return f"{b:.2f} of the characters are letters for {a:.2f}, a loss over {self.maximum_loss:.2f}"
