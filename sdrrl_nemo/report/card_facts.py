"""What the data card says of a finished transfer set, read in one pass over each file with memory that does not grow.

Samples are drawn by a seeded hash of their content key, so the same ones are drawn whatever the order of the file, the
number of workers, or the rows around them.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import canonical_json, read_json, read_jsonl
from sdrrl_nemo.common.seeding import derive_seed
from sdrrl_nemo.data.execution.shard import shard_path
from sdrrl_nemo.data.outputs import PACKED_NAME, VALIDATION_NAME
from sdrrl_nemo.data.packing.blend_files import manifest_of, merged_manifest, packed_prefixes

Row = dict[str, Any]
Counts = npt.NDArray[np.int64]

NEEDED = ("method", "loss", "pairs", "engines", "stages", "subsets", "packing", "heldout", "request")
HELD_OUT = "held-out-"
"""Begins the names of the stages that work on the held-out questions."""
BLOCK = 1 << 20
"""Samples of the packed set that are looked at together."""
FULLNESS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Edges of the classes of packs by the share of their tokens that is used."""
SCORE_BIN = 0.01
MAX_REASONS = 300
"""Different (stage, reason) of which rejects are drawn; a broken run cannot make the card endless."""
IDENTIFIED = re.compile(r"identified as (.+) \(")


class Draw:
    """Draws at most ``size`` rows of each group, by a hash of each row's key alone; memory holds no more than those."""

    def __init__(self, seed: int, purpose: str, size: int) -> None:
        self.seed, self.purpose, self.size = seed, purpose, size
        self._heaps: dict[str, list[tuple[int, str, int, Row]]] = {}

    def offer(self, group: str, key: str, row: Row) -> None:
        """Consider one row; the order of the calls changes nothing."""
        heap = self._heaps.setdefault(group, [])
        rank = -derive_seed(self.seed, self.purpose, group, key)
        if len(heap) < self.size:
            heapq.heappush(heap, (rank, key, len(heap), row))
        elif heap and rank > heap[0][0]:
            heapq.heapreplace(heap, (rank, key, heap[0][2], row))

    def __getitem__(self, group: str) -> list[Row]:
        return [row for *_, row in sorted(self._heaps.get(group, []), key=lambda entry: (-entry[0], entry[1]))]

    @property
    def groups(self) -> list[str]:
        """The groups of which a row was seen."""
        return list(self._heaps)


@dataclass
class SubsetText:
    """What transfer_set.jsonl says of one subset."""

    rows: int = 0
    pair: str = ""
    switched: int = 0
    """Samples with at least one word replaced by code-switching."""
    switchable: int = 0
    """Samples that went through code-switching."""
    exchanges: Counter[int] = field(default_factory=Counter)
    """Number of exchanges -> samples that have so many."""
    systems: int = 0
    """Samples with a system turn."""


@dataclass
class LanguageText:
    """How often a language is asked and answered in; characters of its answers."""

    questions: int = 0
    answers: int = 0
    characters: int = 0


@dataclass
class Texts:
    """One pass over transfer_set.jsonl."""

    subsets: dict[str, SubsetText]
    languages: dict[str, LanguageText]
    draw: Draw


@dataclass
class Rejects:
    """One pass over the rejects: drawn rows by (stage without pair, reason), languages found by language-id."""

    draw: Draw
    counts: Counter[str] = field(default_factory=Counter)
    not_drawn: int = 0
    identified: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


@dataclass
class Lengths:
    """Token counts: ``question[d, n]`` samples of subset d have a question of n tokens; packs by fullness."""

    names: tuple[str, ...]
    question: Counts
    answer: Counts
    fullness: Counts
    samples_in_pack: tuple[int, int]
    """Fewest and most."""


@dataclass
class Scores:
    """Quality of one stage: ``counts[component][b]`` scores in [b, b + 1) * SCORE_BIN."""

    stage: str
    pair: str
    engine: str
    tau: float
    counts: dict[str, Counter[int]]


@dataclass
class Facts:
    """Everything a card shows."""

    directory: Path
    stats: dict[str, Any]
    manifest: dict[str, Any]
    seed: int
    texts: Texts
    rejects: Rejects
    lengths: Lengths
    scores: list[Scores]
    settings: dict[str, Any]
    """Stage -> its settings, of the stages whose folders are still there."""

    @property
    def names(self) -> tuple[str, ...]:
        """The subsets in their fixed order."""
        return self.lengths.names


def base_name(stage: str) -> str:
    """A stage's name without the pair or language that it worked on."""
    return stage.partition(".")[0]


def scope_of(stage: str, pairs: list[str]) -> str:
    """Pair or source language that a stage worked on; '' for a stage over everything."""
    return stage.partition(".")[2] or (pairs[0] if len(pairs) == 1 else "")


def plain_reason(reason: str, names: tuple[str, ...]) -> str:
    """``TT.eng-por: duplicate sample`` -> ``TT: duplicate sample``, so that pairs can be counted together."""
    subset, colon, rest = reason.partition(": ")
    return f"{base_name(subset)}: {rest}" if colon and subset in names else reason


def collect(directory: str | Path, samples: int, rejects: int) -> Facts:
    """Read a finished transfer set; at most ``samples`` of each subset and ``rejects`` of each reason are kept.

    SdrrlError when the run has not finished, a file is missing, or the files do not belong together.
    """
    folder = Path(directory)
    stats = finished_stats(folder)
    prefixes = packed_prefixes(folder / "packed", PACKED_NAME)
    manifests = [read_json(manifest_of(prefix)) for prefix in prefixes]
    manifest = merged_manifest(manifests)
    names = tuple(manifest["subset_names"])
    if manifest.get("request") != stats["request"] or set(names) != set(stats["subsets"]):
        raise SdrrlError(f"{folder}: stats.json and packed/ are of different runs; preprocess again")
    seed = int((stats.get("configuration") or {}).get("seed", 0))
    texts = read_texts(folder / "transfer_set.jsonl", stats, Draw(seed, "data card", samples))
    return Facts(
        directory=folder,
        stats=stats,
        manifest=manifest,
        seed=seed,
        texts=texts,
        rejects=read_rejects(folder, stats, names, Draw(seed, "data card rejects", rejects)),
        lengths=merged_lengths(
            names,
            [
                read_lengths(prefix, tuple(m["subset_names"]), m["seq_length"])
                for prefix, m in zip(prefixes, manifests, strict=True)
            ],
        ),
        scores=read_scores(folder, stats),
        settings={s["name"]: f["settings"]["settings"] for s in stats["stages"] if (f := _stage_facts(folder, s))},
    )


def finished_stats(folder: Path) -> dict[str, Any]:
    """stats.json of a finished run; it is written last."""
    if not folder.is_dir():
        raise SdrrlError(f"{folder}: no such folder; give the output_dir of a finished preprocessing run")
    path = folder / "stats.json"
    if not path.is_file():
        raise SdrrlError(
            f"{path}: no such file, so no run has finished here; run tools/preprocess_sdrrl.py with the same "
            "configuration until it says where it wrote"
        )
    stats = read_json(path)
    missing = [k for k in NEEDED if k not in stats] if isinstance(stats, dict) else list(NEEDED)
    if missing:
        raise SdrrlError(f"{path}: no '{missing[0]}' in it, so another version wrote it; preprocess again")
    return stats  # type: ignore[no-any-return]


def read_texts(path: Path, stats: dict[str, Any], draw: Draw) -> Texts:
    """Counts and drawn samples of transfer_set.jsonl; SdrrlError where its counts are not those of stats.json."""
    subsets = {name: SubsetText() for name in stats["subsets"]}
    languages: dict[str, LanguageText] = defaultdict(LanguageText)
    for n, row in read_jsonl(path):
        if row.get("split") == VALIDATION_NAME:  # stats.json counts what is trained on
            continue
        try:
            found = subsets[row["subset"]]
            asked, answered = languages[row["question_language"]], languages[row["answer_language"]]
            found.rows += 1
            found.pair = row["pair"]
            asked.questions += 1
            answered.answers += 1
            answered.characters += len(row["answer"])
            found.exchanges[1 + len(row.get("earlier", ()))] += 1
            found.systems += "system" in row
            draw.offer(row["subset"], row["key"], row)
        except KeyError as e:
            raise SdrrlError(f"{path}, line {n}: {e} is unknown or missing; preprocess again") from None
        if "switched" in row:
            found.switchable += 1
            found.switched += row["switched"] > 0
    for name, facts in stats["subsets"].items():
        if subsets[name].rows != facts["samples"]:
            raise SdrrlError(
                f"{path}: {subsets[name].rows} samples of {name} where stats.json says {facts['samples']}; the files "
                "do not belong together, preprocess again"
            )
    return Texts(subsets, dict(languages), draw)


def read_rejects(folder: Path, stats: dict[str, Any], names: tuple[str, ...], draw: Draw) -> Rejects:
    """Counts and drawn rows of the rejects, over all pairs."""
    found = Rejects(draw)
    for row in _reject_rows(folder, stats):
        stage, reason = row.get("stage", ""), plain_reason(str(row.get("reason", "")), names)
        group = f"{base_name(stage)}\t{reason}"
        if group not in found.counts and len(found.counts) >= MAX_REASONS:
            found.not_drawn += 1
            continue
        found.counts[group] += 1
        draw.offer(group, canonical_json(row), row)
        match = IDENTIFIED.match(str(row.get("detail", "")))
        if match and base_name(stage) == "language-id":
            found.identified[stage][match[1]] += 1
    return found


def _reject_rows(folder: Path, stats: dict[str, Any]) -> Iterator[Row]:
    """rejects.jsonl, or where a run kept none, what its stages kept."""
    path = folder / "rejects.jsonl"
    if path.is_file():
        yield from (row for _, row in read_jsonl(path))
        return
    for stage in stats["stages"]:
        for row in _stage_rows(folder, stage, "rejects"):
            yield {"stage": stage["name"], **row}


def _stage_facts(folder: Path, stage: dict[str, Any]) -> dict[str, Any] | None:
    """done.json of a stage; None where the run does not say which folder it is, or the folder is gone."""
    if "directory" not in stage:
        return None
    path = folder / stage["directory"] / "done.json"
    return read_json(path) if path.is_file() else None


def _stage_rows(folder: Path, stage: dict[str, Any], kind: str) -> Iterator[Row]:
    facts = _stage_facts(folder, stage)
    for number in range(len(facts["shards"]) if facts else 0):
        yield from (row for _, row in read_jsonl(shard_path(folder / stage["directory"], number, kind)))


def read_scores(folder: Path, stats: dict[str, Any]) -> list[Scores]:
    """The scores that each quality stage kept beside its rows; none where the stages' folders were removed."""
    out = []
    for stage in stats["stages"]:
        facts = _stage_facts(folder, stage) if base_name(stage["name"]) == "quality" else None
        if facts is None:
            continue
        settings = facts["settings"]["settings"]
        counts: dict[str, Counter[int]] = {"question": Counter(), "answer": Counter()}
        for row in _stage_rows(folder, stage, "rows"):
            for component, counter in counts.items():
                earlier = [turn.get(component) for turn in row.get("earlier_quality", ())]
                for score in (*earlier, row.get(f"{component}_quality")):
                    if score is not None:
                        counter[int(np.floor(score / SCORE_BIN + 1e-9))] += 1  # 0.58 / 0.01 is 57.99...
        pair = scope_of(stage["name"], stats["pairs"])
        out.append(Scores(stage["name"], pair, settings["engine"], settings["tau"], counts))
    return out


def read_lengths(prefix: Path, names: tuple[str, ...], seq_length: int) -> Lengths:
    """Token counts from the packed set's index and sidecars, block by block."""
    from sdrrl_nemo.compat.indexed_dataset import IndexedDataset  # seconds

    missing = [
        p for s in ("bin", "idx", "subset.npy", "answer_tokens.npy") if not (p := Path(f"{prefix}.{s}")).is_file()
    ]
    if missing:
        raise SdrrlError(f"{missing[0]}: no such file; preprocess again")
    indexed = IndexedDataset(str(prefix))
    subset = np.load(f"{prefix}.subset.npy", mmap_mode="r")
    answers = np.load(f"{prefix}.answer_tokens.npy", mmap_mode="r")
    lengths, packs = indexed.sequence_lengths, indexed.document_indices
    if not len(lengths) == len(subset) == len(answers):
        raise SdrrlError(f"{prefix}.*: index and sidecars differ in length; the set is damaged, preprocess again")
    if len(lengths) and int(lengths.max()) > seq_length:
        raise SdrrlError(f"{prefix}.idx: a sample is longer than {seq_length} tokens; preprocess again")
    size = seq_length + 1
    tables = np.zeros((2, len(names) * size), np.int64)
    for begin in range(0, len(lengths), BLOCK):
        part = slice(begin, begin + BLOCK)
        answer = answers[part].astype(np.int64)
        group = subset[part].astype(np.int64) * size
        tables[0] += np.bincount(group + lengths[part] - answer, minlength=tables.shape[1])
        tables[1] += np.bincount(group + answer, minlength=tables.shape[1])
    fullness, fewest, most = np.zeros(len(FULLNESS) - 1, np.int64), len(lengths), 0
    for begin in range(0, len(packs) - 1, BLOCK):
        edges = np.asarray(packs[begin : begin + BLOCK + 1], np.int64)
        tokens = np.add.reduceat(lengths[edges[0] : edges[-1]].astype(np.int64), edges[:-1] - edges[0])
        fullness += np.histogram(tokens / seq_length, FULLNESS)[0]
        each = np.diff(edges)
        fewest, most = min(fewest, int(each.min())), max(most, int(each.max()))
    question, answer = tables.reshape(2, len(names), size)
    return Lengths(names, question, answer, fullness, (fewest, most))


def merged_lengths(names: tuple[str, ...], parts: list[Lengths]) -> Lengths:
    """The token counts of several packed sets together, by the subsets ``names``."""
    sums = [np.zeros((len(names), parts[0].question.shape[1]), np.int64) for _ in range(2)]
    for part in parts:
        rows = [names.index(name) for name in part.names]
        sums[0][rows] += part.question
        sums[1][rows] += part.answer
    fewest, most = zip(*(part.samples_in_pack for part in parts), strict=True)
    fullness = np.sum([part.fullness for part in parts], axis=0)
    return Lengths(names, sums[0], sums[1], fullness, (min(fewest), max(most)))


def quantile(counts: Counts, q: float) -> int:
    """The smallest value that at least the share ``q`` of the counted values does not exceed; 0 of nothing."""
    total = int(counts.sum())
    return int(np.searchsorted(np.cumsum(counts), max(1, np.ceil(q * total - 1e-9)))) if total else 0


def log_edges(longest: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, ...: half octaves of whole numbers, until ``longest`` lies below the last edge."""
    edges = [1, 2]
    while edges[-1] <= longest:
        edges.append(edges[-1] * 3 // 2 if edges[-1] & (edges[-1] - 1) == 0 else edges[-1] * 4 // 3)
    return edges


def binned(counts: Counts, edges: list[int]) -> list[int]:
    """How many counted values lie in each of [edges[i], edges[i + 1])."""
    return [int(counts[a:b].sum()) for a, b in pairwise(edges)]
