"""Benchmarks by name from a hub through ``datasets``, written below ``data_dir`` in their official formats.

What is on disk is never fetched again, and reading goes through the same checks whether people or this module put the
files there. The names below are the publishers'; a repository that is only a script for an older ``datasets`` is read
from the hub's own Parquet conversion of it (revision ``refs/convert/parquet``). ``hub`` in the configuration replaces
a name, by that of a mirror or of a local folder that ``datasets.load_dataset`` opens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, write_jsonl
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.readers.official_files import BACTRIAN_CODES, SOURCES, relative_path
from sdrrl_nemo.eval.readers.row_files import candidates
from sdrrl_nemo.eval.scorers.rouge import NAMES as ROUGE_NAMES

PARQUET = "refs/convert/parquet"


@dataclass(frozen=True)
class Source:
    """``name`` of the repository, its split and revision."""

    name: str
    split: str
    revision: str | None = None


HUB = {
    "belebele": Source("facebook/belebele", "test"),
    "flores": Source("facebook/flores", "devtest", PARQUET),
    "xlsum": Source("csebuetnlp/xlsum", "test", PARQUET),
    "mkqa": Source("apple/mkqa", "train", PARQUET),
    "bactrian": Source("MBZUAI/Bactrian-X", "train", PARQUET),
}
MKQA_TYPES = (
    "entity", "long_answer", "unanswerable", "date", "number", "number_with_unit", "short_phrase", "binary",
)  # fmt: skip
"""The hub's copy of MKQA gives types as class numbers, in this order."""


def _configuration(name: str, lang: str) -> str | None:
    if name in ("belebele", "flores"):
        return language(lang).flores
    if name == "xlsum":
        return ROUGE_NAMES[lang]
    return BACTRIAN_CODES[lang] if name == "bactrian" else None


def fetch(name: str, lang: str, data_dir: str | Path, mirrors: dict[str, str]) -> Path:
    """Write the data set's file below ``data_dir`` unless it is there; SdrrlError says what to put where instead."""
    target = Path(data_dir) / relative_path(name, lang)
    for candidate in candidates(target):
        if candidate.is_file():
            return candidate
    if name not in HUB:
        raise SdrrlError(
            f"{target}: no such file, and '{name}' is not fetched; put it there as {SOURCES[name]} publishes it"
        )
    source = HUB[name]
    repository, revision = (mirrors[name], None) if name in mirrors else (source.name, source.revision)
    from datasets import load_dataset

    try:
        rows = load_dataset(repository, _configuration(name, lang), split=source.split, revision=revision)
    except Exception as e:  # datasets and huggingface_hub raise their own, the network adds more
        said = " ".join(str(e).split())
        raise SdrrlError(
            f"{repository}: '{name}' ({lang}) cannot be fetched ({said[:160]}); put its file at {target} as "
            f"{SOURCES[name]} publishes it"
        ) from None
    _write(name, target, rows)
    return target


def _write(name: str, target: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rows of the hub as the official file."""
    if name == "flores":
        with atomic_write(target) as f:
            for row in rows:
                f.write(" ".join(str(row.get("sentence") or row.get("text") or "").split()) + "\n")
    elif name == "bactrian":
        with atomic_write(target) as f:
            json.dump([dict(r) for r in rows], f, ensure_ascii=False)
    elif name == "mkqa":
        write_jsonl(target, (_mkqa_row(dict(r)) for r in rows))
    else:
        write_jsonl(target, ({k: _plain(v) for k, v in r.items()} for r in rows))


def _plain(value: Any) -> Any:
    """datasets reads texts that look like dates (Belebele's ``ds``) as dates."""
    return value.isoformat() if isinstance(value, date) else value


def _mkqa_row(row: dict[str, Any]) -> dict[str, Any]:
    """Class numbers back to names."""
    for answers in row["answers"].values():
        for answer in answers:
            kind = answer.get("type")
            if isinstance(kind, int) and 0 <= kind < len(MKQA_TYPES):
                answer["type"] = MKQA_TYPES[kind]
    return row
