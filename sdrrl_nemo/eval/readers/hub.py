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
from sdrrl_nemo.eval.readers import further_files
from sdrrl_nemo.eval.readers.official_files import BACTRIAN_CODES, SOURCES, NotCovered, relative_path
from sdrrl_nemo.eval.readers.row_files import candidates
from sdrrl_nemo.eval.scorers.mgsm import OFFICIAL as MGSM_LANGUAGES
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
    "flores_plus": Source("openlanguagedata/flores_plus", "devtest"),
    "include": Source("CohereLabs/include-base-44", "test"),
    "global_mmlu": Source("CohereLabs/Global-MMLU", "test"),
    "global_mmlu_lite": Source("CohereLabs/Global-MMLU-Lite", "test"),
    "mgsm": Source("juletxara/mgsm", "test", PARQUET),
    "m_arenahard": Source("CohereLabs/m-ArenaHard", "test"),
}
MKQA_TYPES = (
    "entity", "long_answer", "unanswerable", "date", "number", "number_with_unit", "short_phrase", "binary",
)  # fmt: skip
"""The hub's copy of MKQA gives types as class numbers, in this order."""


def _configuration(name: str, lang: str) -> str | None:
    if name in ("belebele", "flores", "flores_plus"):
        return language(lang).flores
    if name == "include":
        return language(lang).name
    if name in further_files.FETCHED:
        return language(lang).fasttext
    if name == "xlsum":
        return ROUGE_NAMES[lang]
    return BACTRIAN_CODES[lang] if name == "bactrian" else None


def fetch(name: str, lang: str, data_dir: str | Path, mirrors: dict[str, str]) -> Path:
    """Write the data set's file below ``data_dir`` unless it is there; SdrrlError says what to put where instead."""
    further = name in further_files.FETCHED
    target = Path(data_dir) / (further_files.place_of if further else relative_path)(name, lang)
    for candidate in candidates(target):
        if candidate.is_file():
            return candidate
    if name == "mgsm" and lang not in MGSM_LANGUAGES:
        raise NotCovered(f"MGSM has no {language(lang).name}")
    source, published = HUB[name], {**SOURCES, **further_files.FETCHED}[name]
    repository, revision = (mirrors[name], None) if name in mirrors else (source.name, source.revision)
    from datasets import load_dataset

    try:
        rows = load_dataset(repository, _configuration(name, lang), split=source.split, revision=revision)
    except Exception as e:  # datasets and huggingface_hub raise their own, the network adds more
        said = " ".join(str(e).split())
        raise SdrrlError(
            f"{repository}: '{name}' ({lang}) cannot be fetched ({said[:160]}); put its file at {target} as "
            f"{published} publishes it"
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
    elif name == "mgsm":  # its answers are worked examples where there are any; the number is a field of its own
        with atomic_write(target) as f:
            f.writelines(f"{' '.join(str(r['question']).split())}\t{int(r['answer_number'])}\n" for r in rows)
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
