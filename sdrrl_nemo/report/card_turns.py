"""What the data card says of conversations, of texts changed on reading, and of the tokens that carry loss."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from sdrrl_nemo.report.card_answers import about_answers
from sdrrl_nemo.report.card_facts import Facts, base_name

READERS = ("ingest", "generate")
"""Stages whose notes speak of texts."""
OTHER_NOTES = {"training", "held out"}
SURROGATE = "half of a surrogate pair"
"""Reason of ``ingest`` that belongs to what was found in the texts."""


def turn_counts(facts: Facts) -> dict[str, Any] | None:
    """Samples by number of exchanges, and with a system turn; None where each is one question and one answer."""
    counts: Counter[int] = Counter()
    for text in facts.texts.subsets.values():
        counts += text.exchanges
    systems = sum(text.systems for text in facts.texts.subsets.values())
    if set(counts) <= {1} and not systems:
        return None
    return {"exchanges": sorted(counts.items()), "systems": systems}


def text_notes(facts: Facts) -> list[tuple[str, str, int]]:
    """(stage, what was found, how often): NUL, CRLF, half surrogates, blocks of thinking, turns left out."""
    found: Counter[tuple[str, str]] = Counter()
    for stage in facts.stats["stages"]:
        name = base_name(stage["name"])
        if name in READERS:
            notes = (stage.get("notes") or {}).items()
            found.update({(name, note): n for note, n in notes if note not in OTHER_NOTES and not about_answers(note)})
            rejected = (stage.get("dropped") or {}).get(SURROGATE, 0)
            found.update({(name, f"{SURROGATE}, rejected"): rejected} if rejected else {})
    return [(stage, note, n) for (stage, note), n in sorted(found.items())]


def mask_rows(facts: Facts) -> list[dict[str, Any]]:
    """One sample of each kind as runs of tokens with loss and without; none where an older version made the set."""
    rows: list[dict[str, Any]] = facts.stats.get("loss_masks") or []
    return [
        {**row, "pieces": [{**p, "quoted": json.dumps(p["text"], ensure_ascii=False)} for p in row["pieces"]]}
        for row in rows
    ]


def history_of(row: dict[str, Any]) -> dict[str, Any]:
    """System turn and earlier exchanges of a drawn sample."""
    return {"system": row.get("system"), "earlier": row.get("earlier", [])}
