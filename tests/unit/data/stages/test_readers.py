"""Instruction sets in every format, and what is wrong with broken ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.config import InstructionsConfig
from sdrrl_nemo.data.readers import Example, Reading, Skipped, content_of, read_examples
from sdrrl_nemo.data.readers.formats import LOOK_AHEAD, join_alpaca
from sdrrl_nemo.data.stages.ingest import read_instructions

ROWS = [
    {"instruction": "Add.", "input": "1 and 2\u2028and 3", "output": "6"},
    {"instruction": "Say 'olá'.", "input": "", "output": "olá\n\n- olá"},
]
PAIRS = [("Add.\n1 and 2\u2028and 3", "6"), ("Say 'olá'.", "olá\n\n- olá")]


def pairs(path: Path | str, **options: Any) -> list[tuple[str, str]]:
    return [(e.question, e.answer) for e in read_examples(path, Reading(**options)) if isinstance(e, Example)]


def skipped(path: Path, **options: Any) -> list[tuple[str, str]]:
    """(last part of the place, reason) of what cannot be used."""
    found = read_examples(path, Reading(**options))
    return [(s.where.removeprefix(f"{path}, "), s.reason) for s in found if isinstance(s, Skipped)]


def test_join_alpaca() -> None:
    assert join_alpaca("Add.", "1 and 2\n3") == "Add.\n1 and 2\n3"
    assert join_alpaca("Add. ", " ") == "Add."
    assert join_alpaca(" ", "1 and 2 ") == "1 and 2"


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
    path = lines(tmp_path / "s.jsonl", sharegpt)
    found = [e for e in read_examples(path, Reading(keep_system=False)) if isinstance(e, Example)]
    assert [(e.question, e.answer, e.notes) for e in found] == [
        ("Q1", "A1", ()),
        ("Q2", "A2", ("system turn left out", "last question without an answer left out")),
    ]
    kept = [e for e in read_examples(path) if isinstance(e, Example)]
    assert [(e.system, e.question, e.earlier) for e in kept] == [("", "Q1", ()), ("be kind", "Q2", ())]
    assert skipped(path) == [
        ("line 3, conversations[2]", "two questions before an answer"),
        ("line 4", "no question with an answer"),
        ("line 5, conversations[2]", "turn of a 'tool'"),
    ]


def turns(*texts: str, first: str = "user") -> list[dict[str, Any]]:
    roles = {"user": ("user", "assistant"), "assistant": ("assistant", "user")}[first]
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def test_every_turn_of_a_conversation_is_read(tmp_path: Path) -> None:
    whole = [{"role": "developer", "content": "S"}, *turns("Q1", "A1", "Q2", "A2", "Q3", "A3")]
    path = lines(tmp_path / "m.jsonl", [{"messages": whole}, {"system": "T", "messages": turns("Q", "A")}])
    three, one = (e for e in read_examples(path) if isinstance(e, Example))
    assert (three.system, three.earlier) == ("S", (("Q1", "A1"), ("Q2", "A2")))
    assert (three.question, three.answer, three.notes) == ("Q3", "A3", ())
    assert (one.system, one.earlier, one.question) == ("T", (), "Q")
    (first, _) = read_examples(path, Reading(most=1, keep_system=False))
    assert isinstance(first, Example)
    assert (first.question, first.answer, first.system, first.earlier) == ("Q1", "A1", "", ())
    assert first.notes == ("system turn left out", "later turns left out")


PART = {"type": "text", "text": "a"}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([*turns("Q1", "A1"), {"role": "assistant", "content": "A2"}], "two answers to one question"),
        ([*turns("Q1", "A1", "Q2"), {"role": "user", "content": "Q3"}], "two questions before an answer"),
        ([*turns("Q"), {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}], "tool call"),
        ([*turns("Q"), {"role": "assistant", "content": "A", "function_call": {"name": "f"}}], "tool call"),
        ([*turns("Q"), {"role": "assistant", "content": None}], "field 'content' is null"),
        ([*turns("Q"), {"role": "assistant", "content": 3}], "field 'content' must be a text, found int"),
        ([*turns("Q"), {"role": "assistant", "content": ["A"]}], "field 'content' must be a text, found list"),
        ([*turns("Q"), {"role": "assistant", "content": [PART, {"type": "image"}]}], "content part of type 'image'"),
        ([*turns("Q"), {"role": "assistant", "content": [{"type": "text"}]}], "field 'text' is null"),
        ([*turns("Q"), {"role": "assistant"}], "field 'content' is missing"),
        ([*turns("Q"), {"content": "A"}], "field 'role' is missing"),
        ([*turns("Q"), {"role": "ipython\n", "content": "A"}], "turn of a 'ipython'"),
        ([*turns("Q"), {"role": "assistant", "content": "A", "weight": 0}], "an answer marked as not to be learned"),
        ([*turns("Q", "A"), {"role": "system", "content": "S"}, *turns("Q", "A")], "a second system turn, or one"),
        (turns("Q", "", "Q", "A"), "the answer is empty"),
    ],
)
def test_a_turn_that_cannot_be_used_costs_its_row(tmp_path: Path, messages: list[Any], reason: str) -> None:
    good = [{"messages": turns(f"Q{i}", "A", "and?", "B")} for i in range(12)]
    path = lines(tmp_path / "m.jsonl", [*good, {"messages": messages}])
    ((place, said),) = skipped(path)
    assert said.startswith(reason)
    assert place.startswith("line 13")


def test_tools_beside_the_turns_cost_the_row_and_an_empty_list_of_them_does_not(tmp_path: Path) -> None:
    rows = [{"messages": turns("Q", "A"), "tools": tools} for tools in ([], "[]", None, [{"name": "f"}], '[{"n": 1}]')]
    assert [reason for _, reason in skipped(lines(tmp_path / "m.jsonl", rows))] == ["tool definitions"] * 2


def test_parts_of_text_are_joined(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "m.jsonl", [{"messages": [{"role": "user", "content": [PART, PART]}, *turns("Q", "A")[1:]]}]
    )
    (found,) = read_examples(path)
    assert isinstance(found, Example)
    assert (found.question, found.notes) == ("a\na", ("texts joined of content parts",))


def test_alpaca_with_system_history_or_input_alone(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Q2", "input": "c", "output": "A2", "system": "S", "history": [["Q1", "A1"]]},
        {"instruction": "", "input": "only", "output": "A"},
        {"input": "no key", "output": "A", "history": None, "system": None},
        {"instruction": "Q", "output": "A", "history": [["Q1"]]},
        {"instruction": "Q", "output": "A", "history": [["Q1", None]]},
    ]
    path = lines(tmp_path / "a.jsonl", rows)
    first, second, third, *_ = (e for e in read_examples(path) if isinstance(e, Example))
    assert (first.system, first.earlier, first.question) == ("S", (("Q1", "A1"),), "Q2\nc")
    assert [(e.question, e.system, e.earlier) for e in (second, third)] == [("only", "", ()), ("no key", "", ())]
    assert skipped(path) == [
        ("line 4", "field 'history' must be a list of [question, answer]"),
        ("line 5", "field 'history[1]' is null"),
    ]
    assert pairs(path, most=1)[0] == ("Q1", "A1")
    inputs = lines(tmp_path / "b.jsonl", rows[2:3])
    assert pairs(inputs) == [("no key", "A")]


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
        ("a.jsonl", '{"instruction": "x", "output": null}\n', "line 1: field 'output' is null; 1 of 1 records"),
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
        ("a.tsv", "x", r"'\.tsv' is not one of \.json, \.jsonl, \.csv"),
        ("a.parquet.gz", "x", r"'\.parquet\.gz' is not one of"),
        ("a.csv", "a,a\n1,2\n", "line 1: a CSV file begins with the names of its columns, each once"),
        ("a.csv", '"a\nb', "line 1: no CSV header"),
        ("a.jsonl.gz", "no gzip", "cannot be read after line 0"),
        ("a.jsonl.zst", "no zstd", "cannot be read after line 0"),
        ("a.jsonl", "", "no instruction in this file"),
    ],
)
def test_what_is_wrong_and_where(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SdrrlError, match=message) as caught:
        read_instructions(InstructionsConfig(path=str(path)))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_csv_and_packed_files(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    body = '\ufeffinstruction,input,output\r\nAdd.,"1 and 2\u2028and 3",6\r\n\r\n"Say \'olá\'.",,"olá\n\n- olá"\r\n'
    table.write_bytes(body.encode())
    assert pairs(table) == PAIRS
    whole = lines(tmp_path / "a.jsonl", ROWS)
    for source in (table, whole):
        (tmp_path / f"{source.name}.gz").write_bytes(gzip.compress(source.read_bytes()))
        with pyarrow.CompressedOutputStream(str(tmp_path / f"{source.name}.zst"), "zstd") as f:
            f.write(source.read_bytes())
        for suffix in ("gz", "zst"):
            assert pairs(tmp_path / f"{source.name}.{suffix}") == PAIRS, suffix


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_packed_file_that_was_cut_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl.{suffix}"
    data = b"".join(json.dumps({"instruction": f"q{i} {i * i}", "output": "a"}).encode() + b"\n" for i in range(5000))
    if suffix == "gz":
        path.write_bytes(gzip.compress(data))
    else:
        with pyarrow.CompressedOutputStream(str(path), "zstd") as f:
            f.write(data)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(SdrrlError, match=r"cannot be read after line \d+"):
        pairs(path)


def test_broken_rows_of_csv_cost_themselves_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    long = "x" * 200_000
    rows = [
        b"instruction,output",
        b"a,b",
        b"a,b,c",
        b"\xff\xfe,b",
        b'"a"x,b',
        b"d\x00,e",
        f"{long},f".encode(),
        b'"u,v',
    ]
    path.write_bytes(b"\n".join(rows) + b"\n")
    assert pairs(path) == [("a", "b"), ("d", "e"), (long, "f")]
    assert skipped(path) == [
        ("line 3", "another number of columns than the header"),
        ("line 4", "not UTF-8"),
        ("line 5", "not valid CSV"),
        ("line 8", "not valid CSV"),
    ]


BAD_LINES = [
    (rb'{"instruction": "a", "output": null}', "field 'output' is null"),
    (rb'{"instruction": "a", "output": 3}', "field 'output' must be a text, found int"),
    (rb'{"instruction": ["a"], "output": "b"}', "field 'instruction' must be a text, found list"),
    (rb'{"instruction": "half \ud83d", "output": "b"}', "half of a surrogate pair"),
    (b'{"instruction": "\xed\xa0\xbd", "output": "b"}', "not UTF-8"),
    (b'{"instruction": "a", ', "not valid JSON"),
    (b'["a"]', "expected an object, found list"),
    (b'{"instruction": "a"}', "field 'output' is missing"),
    (b'{"instruction": "a", "output": ""}', "the answer is empty"),
    (b'{"instruction": "' + b"a" * 300 + b'", "output": "b"}', "longer than instructions.max_characters"),
]


@pytest.mark.parametrize("first", [True, False])
def test_every_kind_of_broken_row_is_rejected_with_its_line(tmp_path: Path, first: bool) -> None:
    good = [json.dumps({"instruction": f"q{i}", "output": "a \U0001f600"}).encode() for i in range(20)]
    bad = [line for line, _ in BAD_LINES]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([*bad, *good] if first else [*good, *bad]) + b"\n")
    found = read_instructions(InstructionsConfig(path=str(path), max_rejected=0.34, max_characters=250))
    assert [(r["question"], r["answer"]) for r in found.rows] == [(f"q{i}", "a \U0001f600") for i in range(20)]
    start = 1 if first else 21
    expected = [(f"{path}, line {n}", reason) for n, (_, reason) in enumerate(BAD_LINES, start)]
    assert [(r["detail"], r["reason"]) for r in found.rejects] == expected
    with pytest.raises(
        SdrrlError, match=rf"line {start}: field 'output' is null; 10 of 30 records are rejected"
    ) as caught:
        read_instructions(InstructionsConfig(path=str(path), max_rejected=0.3, max_characters=250))
    assert "instructions.max_rejected=0.3" in str(caught.value)


def test_a_set_of_another_kind_fails_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n' * LOOK_AHEAD + "{" * 10, encoding="utf-8")
    with pytest.raises(SdrrlError, match=r"line 1: the fields text fit none of the formats"):
        read_instructions(InstructionsConfig(path=str(path)))
    path.write_text('{"instruction": "x", "response": "y"}\n' * 1000, encoding="utf-8")
    with pytest.raises(SdrrlError, match=r"line 1: field 'output' is missing.*; 1000 of 1000 records are rejected"):
        read_instructions(InstructionsConfig(path=str(path), max_rejected=1.0 - 1e-9))


def test_nul_and_line_breaks_become_plain_and_are_counted(tmp_path: Path) -> None:
    rows = [{"instruction": "a\r\nb\x00\rc", "output": "d\r\n"}, {"instruction": "x", "output": "y\x00"}]
    found = read_instructions(InstructionsConfig(path=str(lines(tmp_path / "a.jsonl", rows))))
    assert [(r["question"], r["answer"]) for r in found.rows] == [("a\nb\nc", "d"), ("x", "y")]
    assert found.notes == {"texts with NUL, removed": 2, "texts with CRLF, now LF": 2}


def test_empty_answers_count_or_are_left_out_as_wished(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [*ROWS, {"instruction": "x", "input": "", "output": " "}])
    with pytest.raises(SdrrlError, match=r"line 3: the answer is empty; .* instructions.drop_empty=true"):
        read_instructions(InstructionsConfig(path=str(path)))
    (row,) = read_instructions(InstructionsConfig(path=str(path), drop_empty=True)).rejects
    assert row["reason"] == "empty answer"


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


def test_a_record_may_say_what_it_counts(tmp_path: Path) -> None:
    row = {"instruction": "Add.", "output": "6"}
    weights = [2.5, "0.25", 1, None, "", 3]
    path = lines(tmp_path / "w.jsonl", [{**row, "weight": w} for w in weights])
    found = [e.weight for e in read_examples(path, Reading()) if isinstance(e, Example)]
    assert found == [2.5, 0.25, 1.0, 1.0, 1.0, 3.0]
    assert all(e.weight == 1 for e in read_examples(path, Reading(weight="")) if isinstance(e, Example))
    assert all(e.weight == 1 for e in read_examples(path, Reading(weight="score")) if isinstance(e, Example))
    bad = lines(tmp_path / "bad.jsonl", [{**row, "weight": w} for w in (0, -1, True, "much", [2], 1e999, {})])
    assert skipped(bad) == [(f"line {n}", "field 'weight' must be a positive number") for n in range(1, 8)]
    read = read_instructions(InstructionsConfig(path=str(lines(tmp_path / "i.jsonl", [{**row, "weight": 4}, ROWS[1]]))))
    assert [r.get("weight") for r in read.rows] == [4.0, None]
