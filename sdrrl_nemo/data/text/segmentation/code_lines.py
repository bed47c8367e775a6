"""Code, commands and JSON that stand in a text without a fence or backticks, as people and models write them."""

from __future__ import annotations

import json

import regex

_NAME = r"[A-Za-z_$][\w$]*(?:(?:\.|->|::)[A-Za-z_$][\w$]*)*"
_LITERAL = rf"(?:-?\d[\w.]*|'[^']*'|\"[^\"]*\"|{_NAME}\(.*\)|\[.*\]|\{{.*\}}|True|False|None|true|false|null)"
_KINDS = (
    # Python
    r"(?:async\s+)?def\s+\w+\s*\(.*\).*:",
    r"class\s+\w+\s*(?:\(.*\))?\s*[:{]",
    r"from\s+[\w.]+\s+import\s+[\w.]+(?:\s*,\s*[\w.]+)*",
    r"import\s+[\w.]+(?:\s*,\s*[\w.]+)*(?:\s+as\s+\w+)?;?",
    r"for\s+\w+(?:,\s*\w+)*\s+in\s+[\w.]+(?:\(.*\))?:",
    r"(?:while|if|elif)\s.*(?:[<>=!]=|[<>]|\w\(|\bnot\s|\bis\s+None|\bTrue|\bFalse).*:",
    r"with\s+[\w.]+\(.*\)(?:\s+as\s+\w+)?:",
    r"(?:else|try|finally|except(?:\s+\w+)?):",
    r"return\b.*[\d;()\[\]'\"+*/=<>-].*",
    # C, Java, JavaScript ...
    r"#include\s*[<\"].*",
    r"(?:const|let|var|auto|int|float|double|char|bool|boolean|string|String)\s+\w+\s*=.*",
    r"(?:public|private|protected|static|void|int|function|fn|func|fun)\s+[\w<>\[\] ]*\(.*\).*",
    r"(?:for|while|if|switch)\s*\(.*\)\s*\{?",
    r".*\w\(.*\)\s*[;{]",
    r".*=.*;",
    r"[})\]]+[;,]?(?:\s*else\s*\{)?",
    r"//.*|/\*.*\*/",
    # one call, one assignment
    rf"{_NAME}\(.*\)",
    rf"[a-z_$][\w$.]*(?:\[[^\]]*\])?\s*(?:[-+*/|&]?=|:=)\s*{_LITERAL}(?:\s*[-+*/%]\s*{_LITERAL})*",
    # SQL, whose words stand in capitals and its names do not
    r"(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE|DROP TABLE|ALTER TABLE|FROM|WHERE|SET|VALUES|LIMIT|HAVING"
    r"|(?:LEFT |RIGHT |INNER |OUTER )?JOIN|GROUP BY|ORDER BY)\s+(?=.*[a-z0-9_*])[\w\s.*\"'`(),=<>%+-]+;?",
    # commands
    r"\$\s+[a-z][\w.-]*(?:\s+\S+)*",
    r"(?:sudo|pip3?|npm|npx|git|apt|apt-get|brew|docker|conda|curl|wget|chmod|mkdir|cd|ls)\s+"
    r"(?:-{1,2}\w|install\b|clone\b|commit\b|push\b|pull\b|add\b|run\b|[~./]|https?:)[^!?]*",
)
_CODE_LINE = regex.compile(rf"\s*+(?:{'|'.join(_KINDS)})\s*+")
_JSON_START = regex.compile(r"\{\s*\"|\[\s*[\[{\"]")
_DECODER = json.JSONDecoder()
_MOST_FAILURES = 100
_LONGEST = 300


def is_code(line: str) -> bool:
    """Whether a whole line can only be code: a statement, a call, a query, a command."""
    return len(line) <= _LONGEST and _CODE_LINE.fullmatch(line) is not None


def json_ranges(text: str) -> list[tuple[int, int]]:
    """[start, end) of the JSON objects, and lists of texts or objects, that parse; in order and disjoint."""
    out: list[tuple[int, int]] = []
    at = failures = 0
    while failures < _MOST_FAILURES and (match := _JSON_START.search(text, at)):
        try:
            _, end = _DECODER.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            failures, at = failures + 1, match.start() + 1
            continue
        if text[end : end + 1] != "(":  # ["name"](address) is a link
            out.append((match.start(), end))
        at = end
    return out
