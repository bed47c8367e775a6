"""Instruction sets in every format, and what is wrong with broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.readers import Example, Skipped, content_of, read_examples
from sdrrl_nemo.data.readers.formats import join_alpaca

ROWS = [
    {"instruction": "Add.", "input": "1 and 2\u2028and 3", "output": "6"},
    {"instruction": "Say 'olá'.", "input": "", "output": "olá\n\n- olá"},
]
PAIRS = [("Add.\n1 and 2\u2028and 3", "6"), ("Say 'olá'.", "olá\n\n- olá")]


def pairs(path: Path | str, **options: Any) -> list[tuple[str, str]]:
    return [(e.question, e.answer) for e in read_examples(path, **options) if isinstance(e, Example)]


def test_join_alpaca() -> None:
    assert join_alpaca("Add.", "1 and 2\n3") == "Add.\n1 and 2\n3"
    assert join_alpaca("Add. ", " ") == "Add."


def lines(path: Path, rows: list[dict[str, Any]], end: str = "\n", bom: bool = False) -> Path:
    text = "".join(json.dumps(r, ensure_ascii=False) + end for r in rows)
    path.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    return path


def test_alpaca_in_every_container(tmp_path: Path) -> None:
    whole = tmp_path / "a.json"
    whole.write_text(json.dumps(ROWS), encoding="utf-8-sig")
    table = pyarrow.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "plain"))
    parts = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    )
    parts.save_to_disk(str(tmp_path / "parts"))
    for path in (
        lines(tmp_path / "a.jsonl", ROWS),
        lines(tmp_path / "b.jsonl", ROWS, end="\r\n"),
        whole,
        tmp_path / "a.parquet",
        tmp_path / "plain",
        tmp_path / "parts",
    ):
        assert pairs(path) == PAIRS, path
    assert pairs(tmp_path / "parts", split="test") == PAIRS[:1]
    with pytest.raises(SdrrlError, match=r"no split 'validation'; set instructions.split to one of train, test"):
        pairs(tmp_path / "parts", split="validation")


def test_conversations(tmp_path: Path) -> None:
    sharegpt = [
        {"id": "1", "conversations": [{"from": "human", "value": " Q1 "}, {"from": "gpt", "value": "A1"}]},
        {
            "conversations": [
                {"from": "system", "value": "be kind"},
                {"from": "gpt", "value": "the end of something"},
                {"from": "human", "value": "Q2"},
                {"from": "gpt", "value": "A2"},
                {"from": "human", "value": "Q3"},
            ]
        },
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "human", "value": "Q"}]},
        {"conversations": []},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "tool", "value": "x"}]},
    ]
    found = list(read_examples(lines(tmp_path / "s.jsonl", sharegpt)))
    assert [(e.question, e.answer, e.notes) for e in found if isinstance(e, Example)] == [
        ("Q1", "A1", ()),
        ("Q2", "A2", ("system turn left out", "later turns left out")),
    ]
    reasons = ["two questions before an answer", "no question with an answer", "turn of a 'tool'"]
    assert [s.reason for s in found if isinstance(s, Skipped)] == reasons
    messages = [{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}]
    assert pairs(lines(tmp_path / "m.jsonl", messages)) == [("Q", "A")]


def test_other_field_names(tmp_path: Path) -> None:
    path = lines(tmp_path / "q.jsonl", [{"question": "Q", "answer": "A"}])
    assert pairs(path, format="alpaca", fields={"instruction": "question", "output": "answer"}) == [("Q", "A")]
    assert pairs(path, fields={"instruction": "question", "output": "answer"}) == [("Q", "A")]
    with pytest.raises(SdrrlError, match=r"format 'alpaca' has no field 'instructions'.*instruction"):
        pairs(path, format="alpaca", fields={"instructions": "question"})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"question": "x"}\n', "line 1: the fields question fit none of the formats"),
        ("a.jsonl", '{"messages": [], "conversations": []}\n', "fit sharegpt and messages"),
        ("a.jsonl", '{"instruction": "x"}\n', "line 1: field 'output' is missing"),
        ("a.jsonl", '{"instruction": "x", "output": null}\n', "line 1: field 'output' is missing"),
        ("a.jsonl", '{"messages": "x"}\n', "line 1: field 'messages' must be a list of turns, found str"),
        ("a.jsonl", '{"messages": ["x"]}\n', r"line 1, messages\[1\]: expected an object"),
        (
            "a.jsonl",
            '{"messages": [{"role": "user", "content": [1]}]}\n',
            r"messages\[1\]: field 'content' must be a text",
        ),
        ("a.json", '{"instruction": "x"}', "expected an array of objects, found dict"),
        ("a.json", '{"instruction": "x"}\n{"a": 1}', r"line 2: JSON goes on after its end; are these JSON Lines"),
        ("a.json", "[1]", "entry 1: expected an object, found int"),
        ("a.json", "[", "line 1: no JSON"),
        ("a.parquet", "PAR1", "cannot be read as Parquet after row 0"),
        ("a.csv", "x", r"'\.csv' is not one of \.json, \.jsonl, \.parquet"),
    ],
)
def test_what_is_wrong_and_where(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SdrrlError, match=message) as caught:
        pairs(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_answers_fail_or_are_counted(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [*ROWS, {"instruction": "x", "input": "", "output": " "}])
    with pytest.raises(SdrrlError, match=r"line 3: the answer is empty; .* instructions.drop_empty=true"):
        pairs(path)
    (skipped,) = [s for s in read_examples(path, drop_empty=True) if isinstance(s, Skipped)]
    assert skipped.reason == "empty answer"


def test_a_directory_that_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match=r"no data set that datasets.save_to_disk wrote"):
        pairs(tmp_path)
    with pytest.raises(SdrrlError, match="no such file"):
        pairs(tmp_path / "none.jsonl")


def test_content_decides_the_fingerprint(tmp_path: Path) -> None:
    a, b = lines(tmp_path / "a.jsonl", ROWS), lines(tmp_path / "b.jsonl", ROWS)
    assert content_of(a) == content_of(b) != content_of(lines(tmp_path / "c.jsonl", ROWS[:1]))
    (tmp_path / "d").mkdir()
    before = content_of(tmp_path / "d")
    lines(tmp_path / "d/x.jsonl", ROWS)
    assert content_of(tmp_path / "d") != before
