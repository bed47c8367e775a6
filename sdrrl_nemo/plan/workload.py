"""How much a run trains on: from the packed set's manifest where there is one, else from what the user says."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.data.packing.blend_files import manifest_of, merged_manifest
from sdrrl_nemo.train.blend.chosen import chosen_sets
from sdrrl_nemo.train.config import RunConfig

ROW_TOKENS = 2048
"""Assumed where neither a packed set nor ``--seq-length`` says."""
FILLED = 0.95
"""Of a row's tokens, in packs not made yet; docs/results/data_packing.json has more for real sets."""


@dataclass(frozen=True)
class Workload:
    """One epoch. ``tokens``, ``samples``, ``rows`` are 0 where unknown: then no duration is predicted."""

    row_tokens: int
    rows: int
    samples: int
    tokens: int
    """Question and answer tokens, without padding."""
    source: str

    @property
    def sample_tokens(self) -> float:
        """Mean length of a sample; a whole row where it is unknown, which makes attention dearest."""
        return self.tokens / self.samples if self.samples else float(self.row_tokens)

    @property
    def pairs(self) -> float:
        """Mean (query, key) pairs of a token, for samples of equal length."""
        return (self.sample_tokens + 1) / 2

    @property
    def filled(self) -> float:
        """Useful part of the tokens a step computes."""
        return self.tokens / (self.rows * self.row_tokens) if self.rows else 1.0

    def row_of(self, cp: int) -> int:
        """Tokens of a row under context parallelism: samples grow to multiples of 2 * cp, half of it in the mean."""
        if cp == 1:
            return self.row_tokens
        in_row = self.row_tokens * self.filled / self.sample_tokens
        return math.ceil((self.row_tokens + in_row * (cp - 0.5)) / (2 * cp)) * 2 * cp

    def steps(self, config: RunConfig) -> int:
        """Optimiser steps of the run; 0 where the number of rows is unknown."""
        t = config.trainer
        return t.max_steps or math.ceil(t.epochs * math.ceil(self.rows / t.global_batch_size))


def workload(config: RunConfig, tokens: int = 0, samples: int = 0, sample_tokens: int = 0, row: int = 0) -> Workload:
    """An epoch of the run.

    Args:
        tokens: question and answer tokens of an epoch. Given: the packed set is not looked at.
        samples: samples of an epoch; with ``sample_tokens`` in place of ``tokens``.
        sample_tokens: mean length of a sample.
        row: tokens of a row.
    """
    if min(tokens, samples, sample_tokens, row) < 0:
        raise SdrrlError("--tokens, --samples, --sample-length and --seq-length must not be negative")
    manifest = Path(config.data.path) / f"{config.data.name}.manifest.json"
    if not tokens and not samples and (known := _packed_sets(config, manifest)):
        return replace(known, row_tokens=row or known.row_tokens)
    if samples and not tokens and not sample_tokens:
        raise SdrrlError("--samples needs --sample-length, the mean number of tokens of a question with its answer")
    tokens = tokens or samples * sample_tokens
    length = row or ROW_TOKENS
    samples = samples or (round(tokens / sample_tokens) if sample_tokens else 0)
    if config.data.packed:
        rows = math.ceil(tokens / (length * FILLED))
    elif samples:
        rows = samples
    else:
        rows = math.ceil(tokens / length)
    said = f"{tokens:,} tokens an epoch, as given" if tokens else f"no packed set at {manifest} yet"
    assumed = "" if row else f"; rows of {length} tokens are assumed, --seq-length says otherwise"
    return Workload(length, rows, samples, tokens, said + assumed)


def _packed_sets(config: RunConfig, manifest: Path) -> Workload | None:
    """The same of the packed set, or of all sets of a blend; None where there is none yet.

    A blend that draws some sets more often than others is taken to draw rows of the mean length.
    """
    chosen = chosen_sets(config.data)
    manifests = [manifest_of(c.prefix) for c in chosen] or [manifest]
    if not all(path.is_file() for path in manifests):
        return None
    m = merged_manifest([read_json(path) for path in manifests])
    rows = int(m["packs"] if config.data.packed else m["samples"])
    drawn = config.data.epoch_rows / rows if chosen and config.data.epoch_rows else 1.0
    rows, samples, tokens = (round(n * drawn) for n in (rows, int(m["samples"]), int(m["tokens"])))
    source = str(manifest) if not chosen else f"{len(chosen)} packed sets, the first of them {manifests[0]}"
    return Workload(int(m["seq_length"]), rows, samples, tokens, source)
