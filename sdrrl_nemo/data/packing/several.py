"""Several packed sets as one: their packs and samples one set behind the other, their subsets under common names.

**What a subset is.** Eq. 6 takes the mean over each subset, so it matters what counts as one. A preprocessing of one
pair calls its subsets LL, TL and so on; one of several pairs has the pair in each name (``LL.eng-por``). Here the pair
is put behind the name wherever the sets together are of more than one pair, so that the LL of Portuguese and the LL of
Japanese are two subsets, as they are where both are made in one preprocessing. Sets that have a subset of one name then
share it: its samples are those of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.packing.blend_files import merged_manifest
from sdrrl_nemo.data.packing.packed import PackedDataset, PackedSamples


def common_names(manifests: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The names of each set's subsets among these sets, in the order of the set's own."""
    pairs = {pair for m in manifests for pair in m.get("pairs") or ()}
    return [tuple(_name(n, m.get("pairs") or (), len(pairs) > 1) for n in m["subset_names"]) for m in manifests]


def _name(name: str, pairs: Sequence[str], several: bool) -> str:
    # A run of several pairs has given its subsets their names already: with the pair, or one name for all pairs.
    return f"{name}.{pairs[0]}" if several and len(pairs) == 1 else name


def check_together(manifests: Mapping[Path, Mapping[str, Any]]) -> None:
    """SdrrlError unless the sets (prefix -> manifest) were packed alike: tokens of one tokenizer, rendered by one chat
    template, packs of one length."""
    facts = {
        "seq_length": ("packs of {} tokens", "the same packing.seq_length"),
        "chat_template": ("conversations rendered with the chat template {}", "the same model and templates"),
        "tokenizer_sha256": ("tokens of the tokenizer {}", "the same model"),
    }
    first = next(iter(manifests))
    for prefix, manifest in manifests.items():
        for key, (what, same) in facts.items():
            here, there = (str(m.get(key)) for m in (manifest, manifests[first]))
            if here != there:
                shown = [what.format(_short(value)) for value in (there, here)]
                raise SdrrlError(
                    f"data.blend: {first} has {shown[0]}, {prefix} has {shown[1]}; one model cannot be trained on "
                    f"both, so preprocess them with {same}"
                )


def _short(value: str) -> str:
    """A hash by its first digits, a template by its beginning."""
    first = " ".join(value.split())
    return first if len(first) <= 24 else f"{first[:12]}…" if " " not in first else f"'{first[:40]}…'"


class SeveralSets(PackedSamples):
    """Packed sets one behind the other. ``names``: of their subsets, as `common_names` has them; ``all_names``: in the
    order of the ids here, when they are to be other than those of these sets alone."""

    def __init__(
        self, sets: Sequence[PackedDataset], names: Sequence[tuple[str, ...]], all_names: Sequence[str] = ()
    ) -> None:
        self.sets = list(sets)
        known = tuple(all_names) or tuple(dict.fromkeys(name for own in names for name in own))
        self.subset_names = known
        ids = [np.asarray([known.index(name) for name in own], np.int64) for own in names]
        self.subset = np.concatenate([own[s.subset] for own, s in zip(ids, sets, strict=True)])
        self.lengths = np.concatenate([s.lengths for s in sets])
        self.answer_tokens = np.concatenate([s.answer_tokens for s in sets])
        self.sample_key = np.concatenate([s.sample_key for s in sets])
        weights = [np.ones(len(s.lengths)) if s.sample_weight is None else s.sample_weight for s in sets]
        self.sample_weight = None if all(s.sample_weight is None for s in sets) else np.concatenate(weights)
        self.first_sample = np.concatenate([[0], np.cumsum([len(s.lengths) for s in sets])])
        """Number here of each set's first sample, and behind them the number of all samples; int64 [sets + 1]."""
        bounds = [first + s.document_indices[:-1] for first, s in zip(self.first_sample[:-1], sets, strict=True)]
        self.document_indices = np.concatenate([*bounds, self.first_sample[-1:]])
        self.manifest = self._together(names)

    def _together(self, names: Sequence[tuple[str, ...]]) -> dict[str, Any]:
        """Counts of all sets, what holds for each of them, and the hashes of their files."""
        renamed = [
            {**s.manifest, "subsets": {n: s.manifest["subsets"][o] for n, o in zip(own, s.subset_names, strict=True)}}
            for s, own in zip(self.sets, names, strict=True)
        ]
        vocabulary = max(int(m["vocab_size"]) for m in renamed)
        files = {str(i): m["files"] for i, m in enumerate(renamed)}
        return {**merged_manifest(renamed), "vocab_size": vocabulary, "files": files}

    def rows_of_sets(self, packed: bool) -> list[int]:
        """How many packs each set has, or samples."""
        return [len(s) if packed else len(s.lengths) for s in self.sets]

    def span(self, samples: range) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """Token ids [n] of consecutive samples of one pack, and their loss masks [n]."""
        which = int(np.searchsorted(self.first_sample, samples.start, "right")) - 1
        first = int(self.first_sample[which])
        return self.sets[which].span(range(samples.start - first, samples.stop - first))
