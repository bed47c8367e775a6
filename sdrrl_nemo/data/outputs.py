"""The final files of a run: transfer_set.jsonl, rejects.jsonl, heldout/*, packed/*, and last stats.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sdrrl_nemo.common.fileio import (
    atomic_write,
    canonical_json,
    room_on_disk,
    sha256_file,
    write_json,
    write_jsonl,
)
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.common.seeding import named_generator
from sdrrl_nemo.data.config import PackingConfig, Pair, pair_name
from sdrrl_nemo.data.methods import Plan
from sdrrl_nemo.data.packing import pack_windows
from sdrrl_nemo.data.runner import Row, Source, StageResult
from sdrrl_nemo.data.tokenization import tokenizer_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sdrrl_nemo.data.packed import TokenizedSample

TOKEN_FIELDS = ("tokens", "prompt_tokens")
PACKED_NAME = "train"


@dataclass(frozen=True)
class Publication:
    """What the final files need besides rows; ``request`` names the settings, inputs and model that were asked for."""

    directory: Path
    request: str
    plan: Plan
    tokenizer: PreTrainedTokenizerBase
    packing: PackingConfig
    seed: int
    engines: list[dict[str, Any]]
    licences: list[dict[str, Any]]
    stages: list[StageResult]
    configuration: dict[str, Any]


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows of one pair of languages: translated questions, and pairs of parallel sentences."""

    questions: Source
    pairs: Source


def publish_outputs(
    publication: Publication, tokenized: StageResult, held_out: Mapping[Pair, HeldOut]
) -> dict[str, Any]:
    """Write the final files, stats.json last; returns its content.

    Nothing here depends on the clock but the seconds in stats.json.
    """
    directory = publication.directory
    (directory / "stats.json").unlink(missing_ok=True)
    write_jsonl(directory / "rejects.jsonl", (row for stage in publication.stages for row in stage.rejects()))
    held = {pair_name(pair): _write_held_out(directory, pair, rows) for pair, rows in held_out.items()}
    manifest = _write_samples(publication, tokenized.source())
    subsets = {d: manifest["subsets"][d] for d in manifest["subset_names"]}
    stats = {
        "request": publication.request,
        **_about(publication),
        "engines": publication.engines,
        "licences": publication.licences,
        "configuration": publication.configuration,
        "stages": [_about_stage(stage, directory) for stage in publication.stages],
        "subsets": {d: {**facts, "weight": 1 / facts["samples"]} for d, facts in subsets.items()},
        "packing": {k: manifest[k] for k in ("packs", "samples", "tokens", "seq_length", "packing_efficiency")},
        "heldout": held,
        "files": {str(p.relative_to(directory)): sha256_file(p) for p in _final_files(directory, held)},
    }
    write_json(directory / "stats.json", stats)
    return stats


def _about(publication: Publication) -> dict[str, Any]:
    """What stats.json and the packed set's manifest both say of the run."""
    return {
        "method": publication.plan.method,
        "loss": publication.plan.loss(),
        "pairs": [pair_name(pair) for pair in publication.plan.pairs],
    }


def _about_stage(stage: StageResult, directory: Path) -> dict[str, Any]:
    """Its counts, and where its rows and rejects lie."""
    return {**stage.statistics(), "directory": str(stage.directory.relative_to(directory))}


def _write_held_out(directory: Path, pair: Pair, rows: HeldOut) -> dict[str, int]:
    """``heldout/<pair>/questions.jsonl`` and ``pairs.jsonl``; returns how many rows each has."""
    folder = directory / "heldout" / pair_name(pair)
    pairs = ({k: row[k] for k in ("key", "source", "target")} for row in rows.pairs.read())
    return {
        "questions": write_jsonl(folder / "questions.jsonl", map(_held_out_question, rows.questions.read())),
        "pairs": write_jsonl(folder / "pairs.jsonl", pairs),
    }


def _held_out_question(row: Row) -> Row:
    return {"key": row["source_key"], **{k: row[k] for k in ("question", "answer", "question_target", "answer_target")}}


def _final_files(directory: Path, pairs: Iterable[str]) -> Iterator[Path]:
    for name in ("transfer_set.jsonl", "rejects.jsonl"):
        yield directory / name
    for folder in (*(f"heldout/{pair}" for pair in pairs), "packed"):
        yield from sorted(p for p in (directory / folder).iterdir() if p.is_file())


def _write_samples(publication: Publication, rows: Source) -> dict[str, Any]:
    """transfer_set.jsonl and the packed set in one pass; returns the packed set's manifest."""
    from sdrrl_nemo.data.packed import PackedWriter, TokenizedSample  # imports Megatron: seconds

    size, names = publication.packing.seq_length, publication.plan.subset_names()
    folder = publication.directory / "packed"
    writer = PackedWriter(folder, PACKED_NAME, len(publication.tokenizer), size, names)
    try:
        with room_on_disk(publication.directory), atomic_write(publication.directory / "transfer_set.jsonl") as text:
            samples = _written(progress(rows.read(), "pack", total=rows.total), text, TokenizedSample)
            for pack in packs_in_order(samples, size, publication.packing.buffer, publication.seed):
                writer.add_pack(pack)
            return writer.finish(
                {
                    "tokenizer_sha256": tokenizer_sha256(publication.tokenizer),
                    "request": publication.request,
                    **_about(publication),
                }
            )
    except BaseException:
        writer.discard()
        raise


def _written(rows: Iterable[Row], text: IO[str], kind: Any) -> Iterator[TokenizedSample]:
    """Each row as a sample, once its text is written to transfer_set.jsonl."""
    for row in rows:
        plain = {k: v for k, v in row.items() if k not in TOKEN_FIELDS}
        text.write(canonical_json(plain) + "\n")
        mask = np.ones(len(row["tokens"]), np.uint8)
        mask[: row["prompt_tokens"]] = 0
        yield kind(row["key"], row["subset"], np.asarray(row["tokens"], np.int32), mask)


def packs_in_order(
    samples: Iterable[TokenizedSample], capacity: int, buffer: int, seed: int
) -> Iterator[list[TokenizedSample]]:
    """Packs of samples; memory holds ``buffer`` samples.

    Best-fit-decreasing leaves the packs of a buffer sorted by their longest sample, so their order is shuffled, by the
    seed and the buffer's number. The samples come in an order that is random already.
    """
    waiting: dict[int, TokenizedSample] = {}

    def lengths() -> Iterator[int]:
        for i, sample in enumerate(samples):
            waiting[i] = sample
            yield len(sample.tokens)

    for number, packs in enumerate(pack_windows(lengths(), capacity, buffer)):
        for p in named_generator(seed, "pack order", number).permutation(len(packs)):
            yield [waiting.pop(i) for i in packs[p]]
