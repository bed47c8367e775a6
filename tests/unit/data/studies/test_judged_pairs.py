"""The committed set of judged translations is well-formed, and a file that is not is refused with its line."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.studies.judged_pairs import FAULTS, FIELDS, read_judged_pairs

SET = Path(__file__).resolve().parents[4] / "data/judged_pairs.jsonl"
ROW = {"source": "Yes.", "target": "Sim.", "pair": "eng-por", "kind": "short answer", "right": True, "fault": None}


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SET.read_text(encoding="utf-8").splitlines()]


def test_every_line_is_a_judged_pair() -> None:
    rows = lines()
    assert len(rows) >= 240
    for number, row in enumerate(rows, 1):
        assert set(row) == set(FIELDS), number
        assert all(row[name] == row[name].strip() != "" for name in ("source", "target", "pair", "kind")), number
        assert row["right"] is (row["fault"] is None), number
        assert row["fault"] in {None, *FAULTS}, number
    assert len(read_judged_pairs(SET)) == len(rows)


def test_no_translation_stands_twice() -> None:
    seen = Counter((row["pair"], row["source"], row["target"]) for row in lines())
    assert [key for key, n in seen.items() if n > 1] == []


def test_every_language_has_right_and_wrong_ones_and_every_fault_has_cases() -> None:
    rows = lines()
    right = Counter(row["pair"] for row in rows if row["right"])
    wrong = Counter(row["pair"] for row in rows if not row["right"])
    assert set(right) == set(wrong) and len(right) >= 4
    assert min(right.values()) >= 40 and min(wrong.values()) >= 30
    assert 0.5 <= right.total() / len(rows) <= 0.6
    faults = Counter(row["fault"] for row in rows if row["fault"])
    assert set(faults) == set(FAULTS) and min(faults.values()) >= 8
    for fault in faults:
        assert len({row["pair"] for row in rows if row["fault"] == fault}) >= 4, fault


def test_texts_are_as_untidy_as_real_ones_and_composed() -> None:
    rows = lines()
    kinds = {row["kind"] for row in rows if row["right"]}
    assert {"list", "code", "latex", "url", "json", "e-mail", "table", "date", "time", "money", "century"} <= kinds
    for row in rows:  # decomposed letters would be a fault that nobody sees
        assert unicodedata.normalize("NFC", row["source"] + row["target"]) == row["source"] + row["target"], row


def test_what_is_code_alone_is_its_own_translation_and_nothing_longer_is() -> None:
    copies = {row["source"] for row in lines() if row["right"] and row["source"] == row["target"]}
    assert all(text == "Paris." or text.startswith(("```", "[{", "https://")) for text in copies), copies


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fault": "lost negation"}, "'right' must be true"),
        ({"right": False}, "'right' must be true"),
        ({"right": False, "fault": "lost negations"}, "did you mean 'lost negation'"),
        ({"right": 1}, "'right' must be true"),
        ({"pair": "eng"}, "two different languages"),
        ({"pair": "por-por"}, "two different languages"),
        ({"pair": "eng-pt"}, "use the ISO 639-3 code 'por'"),
        ({"target": " "}, "'target' is no text or empty"),
        ({"source": 7}, "'source' is no text or empty"),
        ({"note": "?"}, "the fields are"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "pairs.jsonl", ROW, {**ROW, "target": "Sim!", **change})
    with pytest.raises(SdrrlError, match=rf"line 2: .*{said}"):
        read_judged_pairs(path)


def test_a_repetition_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match="line 2: this translation stands there already"):
        read_judged_pairs(write(tmp_path / "twice.jsonl", ROW, {**ROW, "kind": "list"}))
    with pytest.raises(SdrrlError, match="no pairs"):
        read_judged_pairs(write(tmp_path / "empty.jsonl"))
