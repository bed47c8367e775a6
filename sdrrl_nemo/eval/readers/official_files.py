"""The benchmarks' official files, read and checked; every error names file, line and field.

    Belebele/<flores code>.jsonl                       900 rows: link, question_number, flores_passage, question,
                                                       mc_answer1..4, correct_answer_num ("1".."4"), dialect, ds
    flores200_dataset/devtest/<flores code>.devtest    one sentence a line; line n is the same sentence everywhere
    xlsum/<language>_test.jsonl                        id, url, title, summary, text
    mkqa/mkqa.jsonl[.gz]                               query, example_id, queries {lang: text}, answers {lang: [{type,
                                                       text, aliases, entity}]}; 26 languages a row
    Bactrian-X/data/<xx>.json[.gz]                     list of instruction, input, output, id; ids are shared

    flores_plus/devtest/<flores code>.jsonl            FLORES+: id, text, ...; an id is the same sentence everywhere

These are the names in the archives that their authors publish (docs/evaluation.md says where). Each may be gzipped
(``.gz``), and what is rows may be JSON Lines, a JSON list or Parquet under the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.readers.row_files import find_file, read_lines, read_rows
from sdrrl_nemo.eval.scorers.mkqa import CODES as MKQA_CODES
from sdrrl_nemo.eval.scorers.mkqa import answerable, gold_answers
from sdrrl_nemo.eval.scorers.rouge import NAMES as ROUGE_NAMES

XLSUM_LANGUAGES = frozenset({"eng", "fra", "ind", "jpn", "kor", "por", "spa", "tha", "ukr", "vie"})
"""Languages of the table that XL-Sum has."""
BACTRIAN_CODES = {
    "eng": "en", "fra": "fr", "ces": "cs", "ukr": "uk", "fin": "fi", "ind": "id", "jpn": "ja", "kor": "ko", "por": "pt",
    "slv": "sl", "vie": "vi", "pol": "pl", "tha": "th", "khm": "km", "spa": "es",
}  # fmt: skip
"""Languages of the table that Bactrian-X has; bul, dan, hun and nob are not in it."""
SOURCES = {
    "belebele": "github.com/facebookresearch/belebele",
    "flores": "github.com/facebookresearch/flores (flores200_dataset.tar.gz)",
    "flores_plus": "huggingface.co/datasets/openlanguagedata/flores_plus",
    "xlsum": "github.com/csebuetnlp/xl-sum",
    "mkqa": "github.com/apple/ml-mkqa (dataset/mkqa.jsonl.gz)",
    "bactrian": "huggingface.co/datasets/MBZUAI/Bactrian-X",
}
"""Where each data set is published."""


class NotCovered(Exception):
    """The data set has no such language; the text says so."""


@dataclass(frozen=True)
class Belebele:
    """``correct`` counts from 0."""

    id: str
    passage: str
    question: str
    choices: tuple[str, str, str, str]
    correct: int


@dataclass(frozen=True)
class Mkqa:
    """``answers``: all accepted texts; ``types``: what kind of answers they are."""

    id: str
    question: str
    answers: tuple[str, ...]
    types: tuple[str, ...]


@dataclass(frozen=True)
class Article:
    """XL-Sum's text and its one-sentence summary."""

    id: str
    text: str
    summary: str


@dataclass(frozen=True)
class Instruction:
    """Bactrian-X's instruction with its input below it."""

    id: str
    prompt: str


def relative_path(name: str, lang: str) -> Path:
    """Official place of a data set's file below ``data_dir``; NotCovered when it has no such language."""
    entry = language(lang)
    missing = NotCovered(f"{name} has no {entry.name}")
    if name == "belebele":
        return Path("Belebele", f"{entry.flores}.jsonl")
    if name == "flores":
        return Path("flores200_dataset", "devtest", f"{entry.flores}.devtest")
    if name == "flores_plus":
        return Path("flores_plus", "devtest", f"{entry.flores}.jsonl")
    if name == "xlsum":
        if lang not in XLSUM_LANGUAGES:
            raise missing
        return Path("xlsum", f"{ROUGE_NAMES[lang]}_test.jsonl")
    if name == "mkqa":
        if lang not in MKQA_CODES:
            raise missing
        return Path("mkqa", "mkqa.jsonl")
    if lang not in BACTRIAN_CODES:
        raise NotCovered(f"Bactrian-X has no {entry.name}")
    return Path("Bactrian-X", "data", f"{BACTRIAN_CODES[lang]}.json")


def find(name: str, lang: str, data_dir: str | Path) -> Path:
    """The file, in whichever of its forms it is there; SdrrlError says what to put where."""
    return find_file(Path(data_dir) / relative_path(name, lang), name, SOURCES[name])


def text_field(path: Path, n: int, row: dict[str, Any], field: str) -> str:
    """A field of a row that must be a text with something in it."""
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise SdrrlError(f"{path}, line {n}: field '{field}' must be a non-empty text")
    return value


def checked_items(path: Path, items: Sequence[Any], least: int = 1) -> Any:
    """At least ``least`` items, every id once."""
    if len(items) < least:
        raise SdrrlError(f"{path}: {len(items)} item(s); at least {least} are needed")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise SdrrlError(f"{path}: the id '{item.id}' is there twice; fetch the file again")
        seen.add(item.id)
    return items


def read_belebele(data_dir: str | Path, lang: str) -> list[Belebele]:
    """Questions in file order."""
    path = find("belebele", lang, data_dir)
    found = []
    for n, row in read_rows(path):
        number = str(row.get("correct_answer_num", "")).strip()
        if number not in ("1", "2", "3", "4"):
            raise SdrrlError(f"{path}, line {n}: field 'correct_answer_num' is '{number}'; it must be 1, 2, 3 or 4")
        answers = tuple(text_field(path, n, row, f"mc_answer{k}") for k in (1, 2, 3, 4))
        found.append(
            Belebele(
                # link and split name a passage, question_number its question (their README)
                "#".join(str(row[k]) for k in ("link", "split", "question_number") if row.get(k) not in (None, "")),
                text_field(path, n, row, "flores_passage"),
                text_field(path, n, row, "question"),
                (answers[0], answers[1], answers[2], answers[3]),
                int(number) - 1,
            )
        )
    checked: list[Belebele] = checked_items(path, found)
    return checked


def read_flores(data_dir: str | Path, lang: str) -> list[str]:
    """Sentences of devtest; line n of every language is the same sentence."""
    path = find("flores", lang, data_dir)
    lines = read_lines(path)
    for n, line in enumerate(lines, 1):
        if not line.strip():
            raise SdrrlError(f"{path}, line {n}: empty; FLORES has one sentence a line")
    if not lines:
        raise SdrrlError(f"{path}: empty; fetch the file again")
    return lines


def read_flores_plus(data_dir: str | Path, lang: str) -> list[str]:
    """Sentences of FLORES+'s devtest in the order of their ids, which name the same sentence in every language."""
    path = find("flores_plus", lang, data_dir)
    found = {}
    for n, row in read_rows(path):
        number = row.get("id")
        if isinstance(number, bool) or not str(number).isdigit():
            raise SdrrlError(f"{path}, line {n}: field 'id' is '{number}'; it must be the sentence's number")
        if int(str(number)) in found:
            raise SdrrlError(f"{path}: the id '{number}' is there twice; fetch the file again")
        found[int(str(number))] = " ".join(text_field(path, n, row, "text").split())
    if not found:
        raise SdrrlError(f"{path}: empty; fetch the file again")
    return [found[number] for number in sorted(found)]


def read_xlsum(data_dir: str | Path, lang: str) -> list[Article]:
    """Test articles in file order."""
    path = find("xlsum", lang, data_dir)
    fields = ("id", "text", "summary")
    found = [Article(*(text_field(path, n, row, field) for field in fields)) for n, row in read_rows(path)]
    checked: list[Article] = checked_items(path, found)
    return checked


def read_mkqa(data_dir: str | Path, lang: str) -> tuple[list[Mkqa], int]:
    """Questions with a gold answer in file order, and how many were skipped for lack of one (appendix A)."""
    path = find("mkqa", lang, data_dir)
    code = MKQA_CODES[lang]
    found, skipped = [], 0
    for n, row in read_rows(path):
        queries, answers = row.get("queries"), row.get("answers")
        if not isinstance(queries, dict) or not isinstance(answers, dict) or "example_id" not in row:
            raise SdrrlError(f"{path}, line {n}: needs 'example_id', 'queries' and 'answers' as in mkqa.jsonl")
        given = answers.get(code)
        if code not in queries or not isinstance(given, list) or not given:
            raise SdrrlError(f"{path}, line {n}: no question or answers in '{code}'; a row holds every language")
        gold = gold_answers(given)
        if not answerable(gold):
            skipped += 1
            continue
        types = tuple(sorted({str(a.get("type", "")) for a in given}))
        found.append(Mkqa(str(row["example_id"]), text_field(path, n, queries, code), tuple(gold), types))
    checked: list[Mkqa] = checked_items(path, found)
    return checked, skipped


def read_instructions(data_dir: str | Path, lang: str, id_prefix: str = "") -> list[Instruction]:
    """Bactrian-X's prompts whose id begins with ``id_prefix``, in file order; the outputs are not read."""
    path = find("bactrian", lang, data_dir)
    found = []
    for n, row in read_rows(path):
        if not str(row.get("id", "")).startswith(id_prefix):
            continue
        prompt = text_field(path, n, row, "instruction")
        extra = row.get("input") or ""
        found.append(Instruction(text_field(path, n, row, "id"), f"{prompt}\n{extra}" if extra.strip() else prompt))
    checked: list[Instruction] = checked_items(path, found, 2)
    return checked


READERS: dict[str, Callable[..., Any]] = {
    "belebele": read_belebele,
    "flores": read_flores,
    "flores_plus": read_flores_plus,
    "xlsum": read_xlsum,
    "mkqa": read_mkqa,
    "bactrian": read_instructions,
}
