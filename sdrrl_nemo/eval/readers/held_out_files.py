"""The held-out files of a preprocessing directory, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_jsonl, sha256_file
from sdrrl_nemo.data.text.templates import translation_question
from sdrrl_nemo.eval.readers.official_files import text_field

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """A held-out instruction in both languages; the target side comes from the translator."""

    key: str
    question: str
    answer: str
    question_target: str
    answer_target: str


@dataclass(frozen=True)
class Pair:
    """A held-out pair of parallel sentences, translated by people."""

    key: str
    source: str
    target: str


Row = TypeVar("Row", Question, Pair)


@dataclass(frozen=True)
class Sample:
    """What the model is asked, the reference answer, and the held-out row it is from."""

    id: str
    prompt: str
    reference: str


@dataclass(frozen=True)
class HeldOut:
    """Both held-out sets in file order, with the SHA-256 of each file, and the tasks' samples made from them.

    ``count`` takes the first rows; 0 means all.
    """

    source: str
    target: str
    questions: list[Question]
    pairs: list[Pair]
    files: dict[str, str]

    def asked(self, question: str, answer: str, count: int) -> list[Sample]:
        """Questions in one language with the reference answers in the same or the other (ISO 639-3 codes)."""
        side = {self.source: ("question", "answer"), self.target: ("question_target", "answer_target")}
        ask, reply = side[question][0], side[answer][1]
        return [Sample(r.key, getattr(r, ask), getattr(r, reply)) for r in first(self.questions, count)]

    def translations(self, count: int) -> dict[tuple[str, str], list[Sample]]:
        """(from language, to language) -> translation instructions of Table 1, both directions."""
        src, tgt, rows = self.source, self.target, first(self.pairs, count)
        return {
            (src, tgt): [Sample(r.key, translation_question(r.source, src, tgt), r.target) for r in rows],
            (tgt, src): [Sample(r.key, translation_question(r.target, tgt, src), r.source) for r in rows],
        }


def first(rows: Sequence[T], count: int) -> list[T]:
    """The first ``count`` rows; 0 means all."""
    return list(rows[:count] if count else rows)


def read_held_out(data_dir: str | Path, source: str, target: str) -> HeldOut:
    """Read ``questions.jsonl`` and ``pairs.jsonl`` of ``heldout/<source>-<target>/``; SdrrlError names file, line and
    field."""
    folder = Path(data_dir) / "heldout" / f"{source}-{target}"
    q_path, p_path = folder / "questions.jsonl", folder / "pairs.jsonl"
    for path in (q_path, p_path):
        if not path.is_file():
            there = sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) if folder.parent.is_dir() else []
            known = f" (pairs there: {', '.join(there)})" if there else ""
            raise SdrrlError(
                f"{path}: no held-out file here{known}; run tools/preprocess_sdrrl.py first, or mend data_dir or the "
                "languages"
            )
    files = {p.name: sha256_file(p) for p in (q_path, p_path)}
    return HeldOut(source, target, _rows(q_path, Question), _rows(p_path, Pair), files)


def _rows(path: Path, kind: type[Row]) -> list[Row]:
    rows = [kind(*(text_field(path, n, row, f.name) for f in fields(kind))) for n, row in read_jsonl(path)]
    if len(rows) < 2:
        raise SdrrlError(f"{path}: {len(rows)} row(s); an evaluation needs at least 2")
    return rows
