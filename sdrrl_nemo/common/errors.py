"""The one exception that reaches a user: a sentence that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class SdrrlError(Exception):
    """Bad input or state that the user can mend. Entry points print it as one line and exit with 2.

    ``from_any_rank``: said at once by whichever process finds it; else rank 0 speaks, for all found the same.
    """

    from_any_rank: bool = False

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class RowError(SdrrlError):
    """An engine cannot take one row, whatever the others are: too long for the model, refused by the server.

    A stage drops that row alone and counts it by ``reason``, a few words that are the same for all alike
    (``execution.max_failed_fraction``); outside of a stage this is a SdrrlError like any other.
    """

    def __init__(self, message: str, reason: str = "row refused") -> None:
        super().__init__(message)
        self.reason = reason


def one_line(message: str) -> str:
    """A message in one line: names out of damaged files can hold line breaks and control characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", _visible, message)


def _visible(match: re.Match[str]) -> str:
    return " " if match[0] in "\t\n\r\x0b\x0c\x85\u2028\u2029" else match[0].encode("unicode_escape").decode()


def suggest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known name, else the list of known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""
