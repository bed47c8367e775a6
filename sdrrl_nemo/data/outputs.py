"""The final files of a run: transfer_set.jsonl, rejects.jsonl, heldout/*, packed/*, and last stats.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdrrl_nemo.common.fileio import sha256_file, write_json, write_jsonl
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.common.seeding import named_generator
from sdrrl_nemo.data.config import PackingConfig
from sdrrl_nemo.data.packing import pack_stream
from sdrrl_nemo.data.runner import Row, StageResult
from sdrrl_nemo.data.subsets import SUBSETS
from sdrrl_nemo.data.tokenization import tokenizer_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKEN_FIELDS = ("tokens", "prompt_tokens")
PACKED_NAME = "train"


@dataclass(frozen=True)
class Publication:
    """What the final files need besides rows; ``request`` names the settings, inputs and model that were asked for."""

    directory: Path
    request: str
    languages: tuple[str, str]
    tokenizer: PreTrainedTokenizerBase
    packing: PackingConfig
    seed: int
    engines: list[dict[str, str]]
    stages: list[StageResult]


def publish_outputs(
    publication: Publication, tokenized: StageResult, held_out: Iterable[Row], held_out_pairs: Iterable[Row]
) -> dict[str, Any]:
    """Write the final files, stats.json last; returns its content.

    Nothing here depends on the clock but the seconds in stats.json.
    """
    directory = publication.directory
    (directory / "stats.json").unlink(missing_ok=True)
    rows = tokenized.source()
    plain = ({k: v for k, v in row.items() if k not in TOKEN_FIELDS} for row in rows.read())
    write_jsonl(directory / "transfer_set.jsonl", plain)
    write_jsonl(directory / "rejects.jsonl", (row for stage in publication.stages for row in stage.rejects()))
    questions = [_held_out_question(row) for row in held_out]
    pairs = [{k: row[k] for k in ("key", "source", "target")} for row in held_out_pairs]
    write_jsonl(directory / "heldout/questions.jsonl", questions)
    write_jsonl(directory / "heldout/pairs.jsonl", pairs)
    manifest = _pack(publication, list(rows.read()))
    stats = {
        "request": publication.request,
        "source_language": publication.languages[0],
        "target_language": publication.languages[1],
        "engines": publication.engines,
        "stages": [stage.statistics() for stage in publication.stages],
        "subsets": {d: {**manifest["subsets"][d], "weight": 1 / manifest["subsets"][d]["samples"]} for d in SUBSETS},
        "packing": {k: manifest[k] for k in ("packs", "samples", "tokens", "seq_length", "packing_efficiency")},
        "heldout": {"questions": len(questions), "pairs": len(pairs)},
        "files": {str(p.relative_to(directory)): sha256_file(p) for p in _final_files(directory)},
    }
    write_json(directory / "stats.json", stats)
    return stats


def _held_out_question(row: Row) -> Row:
    return {"key": row["source_key"], **{k: row[k] for k in ("question", "answer", "question_target", "answer_target")}}


def _final_files(directory: Path) -> Iterator[Path]:
    for name in ("transfer_set.jsonl", "rejects.jsonl"):
        yield directory / name
    for folder in ("heldout", "packed"):
        yield from sorted(p for p in (directory / folder).iterdir() if p.is_file())


def _pack(publication: Publication, rows: list[Row]) -> dict[str, Any]:
    """Pack all samples and write the packed set; returns its manifest.

    Best-fit-decreasing leaves the packs sorted by their longest sample, so their order is shuffled once, by the seed.
    """
    from sdrrl_nemo.data.packed import PackedWriter, TokenizedSample  # imports Megatron: seconds

    size = publication.packing.seq_length
    packs = list(pack_stream((len(r["tokens"]) for r in rows), size, publication.packing.buffer))
    order = named_generator(publication.seed, "pack order").permutation(len(packs))
    writer = PackedWriter(publication.directory / "packed", PACKED_NAME, len(publication.tokenizer), size)
    for p in progress([int(i) for i in order], "pack"):
        writer.add_pack([_sample(rows[i], TokenizedSample) for i in packs[p]])
    return writer.finish(
        {
            "tokenizer_sha256": tokenizer_sha256(publication.tokenizer),
            "request": publication.request,
            "source_language": publication.languages[0],
            "target_language": publication.languages[1],
        }
    )


def _sample(row: Row, kind: Any) -> Any:
    mask = np.ones(len(row["tokens"]), np.uint8)
    mask[: row["prompt_tokens"]] = 0
    return kind(row["key"], row["subset"], np.asarray(row["tokens"], np.int32), mask)
