"""The one exception that reaches a user: a sentence that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SdrrlError(Exception):
    """Bad input or state that the user can mend. Entry points print it as one line and exit with 2.

    ``from_any_rank``: said at once by whichever process finds it; else rank 0 speaks, for all found the same.
    """

    from_any_rank: bool = False


def suggest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known name, else the list of known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""
