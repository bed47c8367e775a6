"""A set of translations that a person has judged: data/judged_pairs.jsonl, and how a file of its kind is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import read_jsonl
from sdrrl_nemo.data.filters import TextPair
from sdrrl_nemo.data.text.languages import language

FAULTS = {
    "other sentence": "the translation of another text",
    "truncated": "breaks off, or the last paragraphs are missing",
    "untranslated": "the source, copied or nearly so",
    "wrong language": "a right translation into a neighbour language (Spanish, Chinese, Russian, ...)",
    "wrong number": "one number, hour or century is another, in digits or in words",
    "lost negation": "says the opposite: a negation lost or added",
    "repetition loop": "words or sentences repeated over and over",
    "garbage": "tags, entities, control tokens, or text decoded with the wrong encoding",
    "added text": "the translation, and a preamble, a remark or made-up sentences with it",
    "refusal": "an apology of the translating model, in either language",
    "half translated": "begun in the target language, continued in the source's",
    "lost list item": "one item of a list is missing",
    "lost code": "code is missing, or its names are translated",
    "broken URL": "a URL or e-mail address is missing or changed",
    "answered": "an answer to the source instead of its translation",
    "wrong script": "the target language in letters that are not its own",
    "wrong word": "fluent, but a name or a word says something else",
}
"""Fault of a wrong translation -> what it means. Each wrong pair has the one that made it wrong."""
FIELDS = ("source", "target", "pair", "kind", "right", "fault")


@dataclass(frozen=True)
class JudgedPair:
    """A translation and its judgement: ``kind`` of text (list, code, date, ...); ``fault`` is None when it is right."""

    text: TextPair
    kind: str
    fault: str | None

    @property
    def right(self) -> bool:
        """Whether a person found the translation right."""
        return self.fault is None

    @property
    def pair(self) -> tuple[str, str]:
        """Source and target language."""
        return self.text.source_language, self.text.target_language


def read_judged_pairs(path: str | Path) -> list[JudgedPair]:
    """All pairs of a JSON Lines file in its order; SdrrlError with the line for whatever is not as FIELDS says."""
    found: dict[TextPair, JudgedPair] = {}
    for number, row in read_jsonl(path):
        try:
            judged = _judged(row)
        except SdrrlError as e:
            raise SdrrlError(f"{path}, line {number}: {e}") from None
        if judged.text in found:
            raise SdrrlError(f"{path}, line {number}: this translation stands there already; remove one of the two")
        found[judged.text] = judged
    if not found:
        raise SdrrlError(f"{path}: no pairs; give a file of JSON lines with the fields {', '.join(FIELDS)}")
    return list(found.values())


def _judged(row: dict[str, Any]) -> JudgedPair:
    if set(row) != set(FIELDS):
        raise SdrrlError(f"the fields are {sorted(row)}; expected are {', '.join(FIELDS)}")
    for name in ("source", "target", "pair", "kind"):
        if not isinstance(row[name], str) or not row[name].strip():
            raise SdrrlError(f"'{name}' is no text or empty")
    codes = row["pair"].split("-")
    if len(codes) != 2 or codes[0] == codes[1]:
        raise SdrrlError(f"pair '{row['pair']}' is not two different languages such as eng-por")
    source, target = (language(code).code for code in codes)
    right, fault = row["right"], row["fault"]
    if not isinstance(right, bool) or right != (fault is None):
        raise SdrrlError("'right' must be true with 'fault' null, or false with the fault that makes the pair wrong")
    if fault is not None and fault not in FAULTS:
        raise SdrrlError(f"unknown fault '{fault}'{suggest(str(fault), FAULTS)}")
    return JudgedPair(TextPair(row["source"], row["target"], source, target), row["kind"], fault)
