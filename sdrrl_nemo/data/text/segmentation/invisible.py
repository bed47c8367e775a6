"""Characters that no reader sees, and which of them a script needs.

Soft hyphens, zero-width spaces and marks of writing direction come with text that was copied from web pages and word
processors. They cut a word in two for whoever compares or translates it.
"""

from __future__ import annotations

import regex

# Scripts whose letters take another form beside a joiner (Persian, Hindi, Sinhala, Khmer ...).
_SHAPED = "".join(
    rf"\p{{{script}}}"
    for script in (
        "Arabic", "Syriac", "Mongolian", "Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu",
        "Kannada", "Malayalam", "Sinhala", "Tibetan", "Myanmar", "Khmer",
    )
)  # fmt: skip
_UNSPACED = r"\p{Khmer}\p{Thai}\p{Lao}\p{Myanmar}"
_NEEDED = (
    rf"(?<=[{_SHAPED}])[\u200C\u200D]|[\u200C\u200D](?=[{_SHAPED}])"
    rf"|(?<=[{_UNSPACED}])\u200B(?=[{_UNSPACED}])"
    r"|(?<=[\p{Extended_Pictographic}\uFE0F\p{Emoji_Modifier}])\u200D(?=\p{Extended_Pictographic})"
)
INVISIBLE = r"\u00AD\u061C\u180E\u200B-\u200F\u202A-\u202E\u2060-\u2064\u2066-\u206F\uFEFF"
"""Inside a character class: soft hyphen, zero-width characters, joiners, marks of direction, byte-order mark."""
_UNNEEDED = regex.compile(rf"(?:{_NEEDED})(*SKIP)(*FAIL)|[{INVISIBLE}]+?")


def unneeded(text: str) -> list[int]:
    """Positions of the invisible characters that no script needs where they stand, in order."""
    return [] if text.isascii() else [match.start() for match in _UNNEEDED.finditer(text)]


def visible(text: str) -> str:
    """The text without them."""
    return text if text.isascii() else _UNNEEDED.sub("", text)
