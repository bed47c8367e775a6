"""The instruction set that ships with the repository: Alpaca rows, unique, short, and as data/README.md counts them."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pytest

DATA = Path(__file__).parents[4] / "data"
FIELDS = {"instruction", "input", "output"}

Row = dict[str, str]


def _lines() -> list[str]:
    text = (DATA / "instructions_en.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n"), "the last line lacks its line feed"
    return text[:-1].split("\n")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [json.loads(line) for line in _lines()]


def test_every_line_is_an_object_with_three_texts() -> None:
    for number, line in enumerate(_lines(), 1):
        row = json.loads(line)
        assert isinstance(row, dict), f"line {number}"
        assert set(row) == FIELDS, f"line {number}: fields {sorted(row)}"
        assert all(isinstance(value, str) for value in row.values()), f"line {number}: a field is no text"


def test_instruction_and_output_are_filled_and_trimmed(rows: list[Row]) -> None:
    for number, row in enumerate(rows, 1):
        assert row["instruction"].strip(), f"line {number}: empty instruction"
        assert row["output"].strip(), f"line {number}: empty output"
        assert all(value == value.strip() for value in row.values()), f"line {number}: space at an end"
        assert "\ufffd" not in "".join(row.values()), f"line {number}: a broken character"


def test_no_instruction_twice(rows: list[Row]) -> None:
    first: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        folded = " ".join(row["instruction"].casefold().split())
        assert folded not in first, f"line {number} repeats line {first[folded]}: {folded}"
        first[folded] = number


def test_no_output_twice(rows: list[Row]) -> None:
    outputs = [" ".join(row["output"].casefold().split()) for row in rows]
    assert len(set(outputs)) == len(outputs)


def test_no_question_is_nearly_another(rows: list[Row]) -> None:
    """Of the words of two questions with their inputs, fewer than four in five are in both."""
    words = [frozenset(re.findall(r"\w+", f"{row['instruction']} {row['input']}".casefold())) for row in rows]
    holders: dict[str, list[int]] = defaultdict(list)
    for number, found in enumerate(words):
        for word in found:
            holders[word].append(number)
    # Comparing all pairs takes seconds; those that are alike share a word that few have
    pairs = {pair for held in holders.values() if len(held) <= 20 for pair in combinations(held, 2)}
    assert len(pairs) > len(rows)
    alike = [(a + 1, b + 1) for a, b in pairs if len(words[a] & words[b]) >= 0.8 * len(words[a] | words[b])]
    assert alike == [], "lines that ask nearly the same"


def test_enough_rows_and_enough_with_input(rows: list[Row]) -> None:
    assert len(rows) >= 1200
    assert sum(bool(row["input"]) for row in rows) >= 0.2 * len(rows)


def test_outputs_have_4_to_60_words(rows: list[Row]) -> None:
    for number, row in enumerate(rows, 1):
        assert 4 <= len(row["output"].split()) <= 60, f"line {number}"


NUMBER = r"\d[\d,]*(?:\.\d+)?"
SUM = re.compile(rf"(?<![×÷+−] )(?<![\w.(])({NUMBER}(?: [×÷+−] {NUMBER})+)(?: \w+)? = ({NUMBER})(?![.,]?\d| [×÷+−])")
PLAIN = str.maketrans({"×": "*", "÷": "/", "−": "-", ",": None})


def test_sums_are_right(rows: list[Row]) -> None:
    """Every "12 × 3 + 4 = 40" of an answer; some answers write a unit before the sign of equality."""
    found = [(number, m) for number, row in enumerate(rows, 1) for m in SUM.finditer(row["output"])]
    assert len(found) > 150
    for number, match in found:
        left, right = (_value(side.translate(PLAIN)) for side in match.groups())
        assert left == pytest.approx(right), f"line {number}: {match[0]}"


def _value(text: str) -> float:
    """A chain of numbers and signs, worked out as Python does."""
    assert re.fullmatch(r"[\d.*/+ -]+", text), text
    return float(eval(text))


def test_python_and_json_of_the_answers_can_be_read(rows: list[Row]) -> None:
    blocks = [b for row in rows for b in re.findall(r"```(python|json)\n(.*?)```", row["output"], re.DOTALL)]
    assert len(blocks) > 20
    for language, code in blocks:
        ast.parse(code) if language == "python" else json.loads(code)


def test_readme_states_the_true_counts(rows: list[Row]) -> None:
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    with_input = sum(bool(row["input"]) for row in rows)
    assert f"{len(rows):,} English instructions" in readme
    assert f"empty in {len(rows) - with_input} rows, filled in {with_input} " in readme
    categories = readme.split("Rough categories", 1)[1].split("The names in letters", 1)[0]
    assert sum(int(n) for n in re.findall(r"\| (\d+) \|$", categories, re.MULTILINE)) == len(rows)
    words = [len(row["output"].split()) for row in rows]
    mean = round(sum(words) / len(words))
    assert f"{mean} words on average, {min(words)} at least, {max(words)} at most" in readme


def test_licence_names_cc0() -> None:
    licence = (DATA / "LICENSE.CC0").read_text(encoding="utf-8")
    assert "instructions_en.jsonl" in licence
    assert "https://creativecommons.org/publicdomain/zero/1.0/" in licence
