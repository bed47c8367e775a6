"""Text that a tool writes into a page between two lines of its own."""

from __future__ import annotations

from sdrrl_nemo.common.errors import SdrrlError


def markers(part: str, tool: str) -> tuple[str, str]:
    """The lines before and after what ``tool`` writes as ``part`` of a page."""
    return f"<!-- {part}: written by {tool} -->", f"<!-- {part}: end -->"


def replaced(page: str, text: str, between: tuple[str, str], name: str) -> str:
    """``page``, called ``name``, with ``text`` between two markers; SdrrlError unless each is there once, in order."""
    begin, end = between
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(end) < page.index(begin):
        raise SdrrlError(f"{name}: needs the lines '{begin}' and '{end}' once, in this order")
    return f"{page.partition(begin)[0]}{begin}\n{text}\n{end}{page.partition(end)[2]}"
