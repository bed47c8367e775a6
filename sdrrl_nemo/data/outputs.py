"""The final files of a run: transfer_set.jsonl, rejects.jsonl, heldout/*, packed/*, and last stats.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from sdrrl_nemo.compat.transformers5 import token_count
from sdrrl_nemo.data.config import PackingConfig, Pair
from sdrrl_nemo.data.execution.stage_runner import Source, StageResult
from sdrrl_nemo.data.methods import Plan
from sdrrl_nemo.data.packing.best_fit import pack_windows
from sdrrl_nemo.data.packing.by_subset import Part, clear, write_by_subset
from sdrrl_nemo.data.packing.shown_mask import ShownMasks
from sdrrl_nemo.data.pairs import pair_name
from sdrrl_nemo.data.rows import TOKEN_FIELDS, HeldOutPair, HeldOutQuestion, PairRow, TokenizedRow, TranslatedRow
from sdrrl_nemo.data.stages.order import for_validation
from sdrrl_nemo.data.text.tokenizer import tokenizer_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sdrrl_nemo.data.packing.packed import TokenizedSample

PACKED_NAME = "train"
VALIDATION_NAME = "validation"
SPLITS = {False: PACKED_NAME, True: VALIDATION_NAME}


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
    stages: list[StageResult[Any]]
    configuration: dict[str, Any]

    def parts(self) -> list[Part]:
        """The subsets of each pair, in the order of ``plan.subset_names``."""
        named = (
            Part(pair_name(pair), name)
            for pair in self.plan.pairs
            for kinds in (self.plan.combinations_of(pair), self.plan.parallel_of(pair))
            for name in kinds.values()
        )
        return list(dict.fromkeys(named))


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows of one pair of languages: translated questions, and pairs of parallel sentences."""

    questions: Source[TranslatedRow]
    pairs: Source[PairRow]


def publish_outputs(
    publication: Publication, tokenized: StageResult[TokenizedRow], held_out: Mapping[Pair, HeldOut]
) -> dict[str, Any]:
    """Write the final files, stats.json last; returns its content.

    Nothing here depends on the clock but the seconds in stats.json.
    """
    directory = publication.directory
    (directory / "stats.json").unlink(missing_ok=True)
    write_jsonl(directory / "rejects.jsonl", (row for stage in publication.stages for row in stage.rejects()))
    held = {pair_name(pair): _write_held_out(directory, pair, rows) for pair, rows in held_out.items()}
    masks = ShownMasks(_decoder(publication.tokenizer))
    manifest = _write_samples(publication, tokenized.source(), masks)
    subsets = {d: manifest["subsets"][d] for d in manifest["subset_names"]}
    stats = {
        "request": publication.request,
        **_about(publication),
        "engines": publication.engines,
        "licences": publication.licences,
        "configuration": publication.configuration,
        "stages": [_about_stage(stage, directory) for stage in publication.stages],
        "subsets": {d: {**f, "weight": 1 / f.get("weights", f["samples"])} for d, f in subsets.items()},
        "packing": {k: manifest[k] for k in ("packs", "samples", "tokens", "seq_length", "packing_efficiency")},
        "heldout": held,
        "loss_masks": masks.table(),
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


def _about_stage(stage: StageResult[Any], directory: Path) -> dict[str, Any]:
    """Its counts, and where its rows and rejects lie."""
    return {**stage.statistics(), "directory": str(stage.directory.relative_to(directory))}


def _write_held_out(directory: Path, pair: Pair, rows: HeldOut) -> dict[str, int]:
    """``heldout/<pair>/questions.jsonl`` and ``pairs.jsonl``; returns how many rows each has."""
    folder = directory / "heldout" / pair_name(pair)
    return {
        "questions": write_jsonl(folder / "questions.jsonl", map(_held_out_question, rows.questions.read())),
        "pairs": write_jsonl(folder / "pairs.jsonl", map(_held_out_pair, rows.pairs.read())),
    }


def _held_out_question(row: TranslatedRow) -> HeldOutQuestion:
    return {
        "key": row["source_key"],
        "question": row["question"],
        "answer": row["answer"],
        "question_target": row["question_target"],
        "answer_target": row["answer_target"],
    }


def _held_out_pair(row: PairRow) -> HeldOutPair:
    return {"key": row["key"], "source": row["source"], "target": row["target"]}


def _final_files(directory: Path, pairs: Iterable[str]) -> Iterator[Path]:
    for name in ("transfer_set.jsonl", "rejects.jsonl"):
        yield directory / name
    for folder in (*(f"heldout/{pair}" for pair in pairs), "packed"):
        yield from sorted(p for p in (directory / folder).rglob("*") if p.is_file())


def _decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[int]], str]:
    return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _write_samples(publication: Publication, rows: Source[TokenizedRow], masks: ShownMasks) -> dict[str, Any]:
    """transfer_set.jsonl and the packed sets; returns the manifest of the one for training, or of all of them
    together."""
    fraction, seed = publication.packing.validation_fraction, publication.seed

    def held_out(row: TokenizedRow) -> bool:
        return for_validation(seed, fraction, row["source_key"])

    packed, by_subset = publication.directory / "packed", publication.packing.by == "subset"
    clear(packed, kept="" if by_subset else PACKED_NAME)
    write = partial(_write_packed, publication, masks)
    with room_on_disk(publication.directory):
        with atomic_write(publication.directory / "transfer_set.jsonl") as text:
            split = (lambda r: SPLITS[held_out(r)]) if fraction else None
            written = _with_text(progress(rows.read(), "pack", total=rows.total), text, split)
            if by_subset:
                for _ in written:
                    pass
            else:
                manifest = write(PACKED_NAME, (r for r in written if not held_out(r)))
        if by_subset:
            return write_by_subset(packed, publication.parts(), rows.read, held_out, write)
        if fraction:
            write(VALIDATION_NAME, (r for r in rows.read() if held_out(r)))
    return manifest


def _write_packed(
    publication: Publication,
    masks: ShownMasks,
    prefix: str,
    rows: Iterable[TokenizedRow],
    subset_names: Sequence[str] = (),
    **about: Any,
) -> dict[str, Any]:
    """One packed set ``prefix`` under ``packed/``, of all subsets unless some are named; returns its manifest."""
    from sdrrl_nemo.data.packing.packed import PackedWriter, TokenizedSample  # imports Megatron: seconds

    size, names = publication.packing.seq_length, subset_names or publication.plan.subset_names()
    path = publication.directory / "packed" / prefix
    writer = PackedWriter(path.parent, path.name, token_count(publication.tokenizer), size, names)
    try:
        samples = masks.watch((row, _sample(row, TokenizedSample)) for row in rows)
        for pack in packs_in_order(samples, size, publication.packing.buffer, publication.seed):
            writer.add_pack(pack)
        return writer.finish(
            {
                "tokenizer_sha256": tokenizer_sha256(publication.tokenizer),
                "chat_template": publication.tokenizer.chat_template,
                "templates": publication.configuration["templates"],
                "request": publication.request,
                **_about(publication),
                **about,
            }
        )
    except BaseException:
        writer.discard()
        raise


def _with_text(
    rows: Iterable[TokenizedRow], text: IO[str], split: Callable[[TokenizedRow], str] | None
) -> Iterator[TokenizedRow]:
    """Each row, once its text is written to transfer_set.jsonl, with the packed set it goes to where there are two."""
    for row in rows:
        plain = {k: v for k, v in row.items() if k not in TOKEN_FIELDS}
        text.write(canonical_json(plain | {"split": split(row)} if split else plain) + "\n")
        yield row


def _sample(row: TokenizedRow, kind: Any) -> TokenizedSample:
    mask = np.zeros(len(row["tokens"]), np.uint8)
    for first, end in row["spans"]:
        mask[first:end] = 1
    tokens = np.asarray(row["tokens"], np.int32)
    out: TokenizedSample = kind(row["key"], row["subset"], tokens, mask, row.get("weight", 1.0))
    return out


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
