"""The paper's tables as data, so that a report puts a row of ours beside the published one (docs/paper/README.md).

``table<N>.csv`` of tables 2 to 12, 14 and 15 are in long form, one published figure a row. Tables 1 (templates) and 13
(cases) are text. Table 1 is also data/text/templates.py's source.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError

FOLDER = Path(__file__).parent
NUMERIC = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15)
AVERAGED = (2, 3, 4, 5, 7, 8, 9, 10, 11, 14, 15)
"""Tables whose rows end in their own average."""
AVERAGE = "avg"
DIRECTIONS = ("target", "english", "xx-en", "en-xx")


@dataclass(frozen=True)
class Published:
    """One published figure.

    ``language`` is the language trained for (ISO 639-3; ``avg``: the row's average); ``direction`` the one tested:
    ``target`` and ``english`` say in which language the benchmark is, ``xx-en`` and ``en-xx`` which way it translates.
    Methods are SFT, T-SFT, CIT, XCOT and SDRRL, in table 6 SDRRL and what is taken from it or is all that is left, in
    table 12 SDRRL and its source language. Scores run from 0 to 100 (table 12: differences).
    """

    table: int
    model: str
    method: str
    benchmark: str
    metric: str
    language: str
    direction: str
    value: float


@dataclass(frozen=True)
class Average:
    """A published average beside the mean of its row, unrounded; ``row``: benchmark or language and figure."""

    last: Published
    row: tuple[tuple[str, float], ...]

    @property
    def recomputed(self) -> float:
        return math.fsum(value for _, value in self.row) / len(self.row)

    @property
    def follows(self) -> bool:
        """Whether rounding to two decimals explains the difference."""
        return abs(self.last.value - self.recomputed) < 0.005 + 1e-9


@dataclass(frozen=True)
class Case:
    """A row of table 13: a question and LLaMA-2's answer before and after SDRRL, as printed, mistakes included."""

    language: str
    question: str
    before: str
    after: str


@dataclass(frozen=True)
class Template:
    """A row of table 1, with Indonesian as the example."""

    task: str
    question: str
    answer: str


def _rows(table: int) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row of a table's file."""
    path = FOLDER / f"table{table}.csv"
    if not path.is_file():
        raise SdrrlError(f"the paper's table {table} is not there ({path}); reinstall the package")
    with open(path, encoding="utf-8", newline="") as f:
        reader = csv.DictReader(f, strict=True)
        for row in reader:
            if None in row or None in row.values():
                raise SdrrlError(f"{path}, line {reader.line_num}: not as many cells as the header has")
            yield reader.line_num, row


@cache
def load(table: int) -> tuple[Published, ...]:
    """Figures of one table, in the order printed. SdrrlError for a table that has none or a row that is no figure."""
    if table not in NUMERIC:
        raise SdrrlError(f"the paper's table {table} has no figures; those that have: {', '.join(map(str, NUMERIC))}")
    names = [f.name for f in fields(Published)]
    out = []
    for number, row in _rows(table):
        where = f"{FOLDER / f'table{table}.csv'}, line {number}"
        if list(row) != names:
            raise SdrrlError(f"{where}: columns {', '.join(row)}; they must be {', '.join(names)}")
        if row["table"] != str(table) or row["direction"] not in DIRECTIONS:
            raise SdrrlError(f"{where}: table '{row['table']}' or direction '{row['direction']}' is wrong")
        try:
            value = float(row["value"])
        except ValueError:
            raise SdrrlError(f"{where}: value '{row['value']}' is no number") from None
        text = {k: v for k, v in row.items() if k not in ("table", "value")}
        out.append(Published(table=table, value=value, **text))
    return tuple(out)


def load_all() -> tuple[Published, ...]:
    """Every published figure, by table."""
    return tuple(x for table in NUMERIC for x in load(table))


def published(
    model: str, method: str, benchmark: str, metric: str, direction: str, language: str = AVERAGE
) -> float | None:
    """The figure of one language, or the row's average, from the table of that benchmark; None where the paper has
    none. Table 7 repeats averages of tables 8 to 11 and is not looked into."""
    wanted = (model, method, benchmark, metric, direction, language)
    for x in load_all():
        if x.table != 7 and (x.model, x.method, x.benchmark, x.metric, x.direction, x.language) == wanted:
            return x.value
    return None


def averages(table: int) -> list[Average]:
    """Each published average of a table with its row; a row ends with its average."""
    out, row = [], list[Published]()
    for x in load(table):
        last = x.benchmark == "average" if table == 7 else x.language == AVERAGE
        if not last:
            row.append(x)
            continue
        cells = tuple((y.benchmark if table == 7 else y.language, y.value) for y in row)
        out.append(Average(x, cells))
        row = []
    if row:
        raise SdrrlError(f"{FOLDER / f'table{table}.csv'}: its last row has no average")
    return out


def cases() -> list[Case]:
    """Table 13."""
    return [Case(r["language"], r["question"], r["before"], r["after"]) for _, r in _rows(13)]


def templates() -> list[Template]:
    """Table 1."""
    return [Template(r["task"], r["question"], r["answer"]) for _, r in _rows(1)]
