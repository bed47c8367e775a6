"""Code that a translation must carry over as it is."""

from __future__ import annotations

import re

from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair

_FENCED = re.compile(r"^[ >\t]*(```+|~~~+)[^\n]*\n(.*?)^[ >\t]*\1", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_SIGN = re.compile(r"[{}<>=\\_$|;\[\]+*~/]|\w\(|(?:^|\s)--?\w")
"""What words of a text in backticks have not: a menu's name or a verse in a fence is translated, `x = 1` is not."""
# People read strings and comments, so both may be translated. An apostrophe inside a word opens no string.
_READ = re.compile(
    r"\"[^\"\n]*\"|(?<!\w)'[^'\n]*'|/\*.*?\*/|<!--.*?-->|(?:^|(?<=\s))(?:#|//|--)[ \t][^\n]*", re.DOTALL | re.MULTILINE
)


def code_parts(text: str) -> dict[str, str]:
    """What is left of each piece of code without strings, comments and white space -> the piece itself."""
    fenced = [m[2] for m in _FENCED.finditer(text)]
    pieces = [piece for piece in [*fenced, *_INLINE.findall(_FENCED.sub("\n", text))] if _SIGN.search(piece)]
    return {"".join(_READ.sub("", piece).split()): piece for piece in pieces}


@FILTERS.register("code")
class Code(Filter):
    """Code in fences or backticks that the translation lost or changed; its strings and comments may be translated."""

    def __init__(self, max_missing: int = 0) -> None:
        self.max_missing = max_missing

    def reject(self, pair: TextPair) -> str | None:
        source, target = code_parts(pair.source), code_parts(pair.target)
        missing = [" ".join(piece.split())[:40] for key, piece in source.items() if key not in target]
        if len(missing) <= self.max_missing:
            return None
        return f"{len(missing)} pieces of code lost or changed {missing[:3]}, more than {self.max_missing}"
