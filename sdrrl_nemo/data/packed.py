"""The packed set on disk: Megatron MMIDIDX files plus a sidecar that carries what Eq. 6 needs.

One directory holds, for a set called ``train``:

    train.bin / train.idx      token ids; a *sequence* is one sample, a *document* is one pack of samples
    train.loss_mask.npy        uint8 [tokens]  1 on answer tokens (as targets), 0 on question tokens
    train.subset.npy           uint8 [samples] index into SUBSETS
    train.answer_tokens.npy    int32 [samples] number of answer tokens
    train.sample_key.npy       uint64 [samples] content key of the sample in the transfer set
    train.manifest.json        written last: |D_d|, seq_length, vocabulary, tokenizer fingerprint, SHA-256 of each file

Packs hold no padding; cu_seqlens of a pack follow from its samples' lengths. mcore's IndexedDataset reads .bin/.idx.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import publish, read_json, sha256_file, write_json
from sdrrl_nemo.data.subsets import SUBSET_ID, SUBSETS

FORMAT = "sdrrl-packed/1"
SIDECARS = ("loss_mask", "subset", "answer_tokens", "sample_key")


@dataclass(frozen=True)
class TokenizedSample:
    """One row of the transfer set as tokens: ``tokens`` int32 [n], ``loss_mask`` uint8 [n] (1 = answer token)."""

    key: str
    subset: str
    tokens: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.uint8]


class PackedWriter:
    """Writes one packed set; nothing under its final name until ``finish``, the manifest last."""

    def __init__(self, directory: str | Path, name: str, vocab_size: int, seq_length: int) -> None:
        self.directory = Path(directory)
        self.name = name
        self.vocab_size = vocab_size
        self.seq_length = seq_length
        self.directory.mkdir(parents=True, exist_ok=True)
        self._bin = self._temporary("bin")
        self._builder = IndexedDatasetBuilder(str(self._bin), dtype=DType.optimal_dtype(vocab_size))
        self._masks: list[npt.NDArray[np.uint8]] = []
        self._subsets: list[int] = []
        self._answers: list[int] = []
        self._keys: list[int] = []
        self._lengths: list[int] = []
        self._packs = 0

    def _final(self, suffix: str) -> Path:
        return self.directory / f"{self.name}.{suffix}"

    def _temporary(self, suffix: str) -> Path:
        return self.directory / f".{self.name}.{suffix}.tmp"

    def _refuse(self, message: str) -> NoReturn:
        """End the writer: close and remove what was begun."""
        self._builder.data_file.close()
        self._bin.unlink(missing_ok=True)
        raise SdrrlError(message)

    def add_pack(self, samples: Sequence[TokenizedSample]) -> None:
        """Append one pack; SdrrlError when it is empty, too long, or a sample has no answer token."""
        total = sum(len(s.tokens) for s in samples)
        if not samples or total > self.seq_length:
            self._refuse(f"pack {self._packs} has {total} tokens; it must hold 1 to {self.seq_length}")
        for s in samples:
            answer = int(s.loss_mask.sum())
            if answer == 0 or s.loss_mask[0]:
                self._refuse(f"sample {s.key} ({s.subset}) must start with a question token and have an answer token")
            if int(s.tokens.max()) >= self.vocab_size:
                self._refuse(f"sample {s.key} has token id {int(s.tokens.max())}, vocabulary is {self.vocab_size}")
            self._masks.append(s.loss_mask.astype(np.uint8))
            self._subsets.append(SUBSET_ID[s.subset])
            self._answers.append(answer)
            self._keys.append(int(s.key, 16))
            self._lengths.append(len(s.tokens))
        tokens = torch.from_numpy(np.concatenate([s.tokens for s in samples]).astype(np.int64))
        self._builder.add_document(tokens, [len(s.tokens) for s in samples])
        self._packs += 1

    def finish(self, extra: dict[str, Any]) -> dict[str, Any]:
        """Publish all files and, last, the manifest (``extra`` is merged in); returns the manifest.

        ``extra`` must hold ``tokenizer_sha256``.
        """
        if self._packs == 0:
            raise SdrrlError("no sample is left to pack; look at the drop reasons of the stages before")
        self._final("manifest.json").unlink(missing_ok=True)
        idx = self._temporary("idx")
        self._builder.finalize(str(idx))
        publish(self._bin, self._final("bin"))
        publish(idx, self._final("idx"))
        arrays: dict[str, npt.NDArray[Any]] = {
            "loss_mask": np.concatenate(self._masks),
            "subset": np.asarray(self._subsets, np.uint8),
            "answer_tokens": np.asarray(self._answers, np.int32),
            "sample_key": np.asarray(self._keys, np.uint64),
        }
        for key, array in arrays.items():
            tmp = self._temporary(key)
            with open(tmp, "wb") as f:
                np.save(f, array)
            publish(tmp, self._final(f"{key}.npy"))
        manifest = self._manifest(arrays, extra)
        write_json(self._final("manifest.json"), manifest)
        return manifest

    def _manifest(self, arrays: dict[str, npt.NDArray[Any]], extra: dict[str, Any]) -> dict[str, Any]:
        lengths = np.asarray(self._lengths, np.int64)
        subset = arrays["subset"]
        counts = {
            d: {
                "samples": int((subset == i).sum()),
                "tokens": int(lengths[subset == i].sum()),
                "answer_tokens": int(arrays["answer_tokens"][subset == i].sum()),
            }
            for i, d in enumerate(SUBSETS)
        }
        names = [f"{self.name}.bin", f"{self.name}.idx", *(f"{self.name}.{s}.npy" for s in SIDECARS)]
        return {
            **extra,
            "format": FORMAT,
            "vocab_size": self.vocab_size,
            "seq_length": self.seq_length,
            "packs": self._packs,
            "samples": len(lengths),
            "tokens": int(lengths.sum()),
            "packing_efficiency": float(lengths.sum() / (self._packs * self.seq_length)),
            "subsets": counts,
            "files": {
                n: {"bytes": (self.directory / n).stat().st_size, "sha256": sha256_file(self.directory / n)}
                for n in names
            },
        }


@dataclass(frozen=True)
class Pack:
    """One pack: tokens int64 [n], loss_mask uint8 [n], and per sample lengths, subset ids, answer lengths, keys."""

    tokens: npt.NDArray[np.int64]
    loss_mask: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]
    subset: npt.NDArray[np.uint8]
    answer_tokens: npt.NDArray[np.int32]
    sample_key: npt.NDArray[np.uint64]


class PackedDataset:
    """Random access to the packs of a verified set; ``len`` is the number of packs."""

    def __init__(self, directory: str | Path, name: str = "train", tokenizer_sha256: str | None = None) -> None:
        """Open and verify. SdrrlError names the damaged or mismatching file.

        ``tokenizer_sha256``: fingerprint of the tokenizer the model uses; None skips that check.
        """
        self.directory = Path(directory)
        self.name = name
        self.manifest = self._verified_manifest(tokenizer_sha256)
        prefix = self.directory / name
        self.indexed = IndexedDataset(str(prefix))
        self.loss_mask = np.load(f"{prefix}.loss_mask.npy", mmap_mode="r")
        self.subset = np.load(f"{prefix}.subset.npy")
        self.answer_tokens = np.load(f"{prefix}.answer_tokens.npy")
        self.sample_key = np.load(f"{prefix}.sample_key.npy")
        self.lengths = np.asarray(self.indexed.sequence_lengths, np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.document_indices = np.asarray(self.indexed.document_indices, np.int64)

    def _verified_manifest(self, tokenizer_sha256: str | None) -> dict[str, Any]:
        path = self.directory / f"{self.name}.manifest.json"
        if not path.is_file():
            raise SdrrlError(f"{path}: no packed set here; run tools/preprocess_sdrrl.py first")
        manifest: dict[str, Any] = read_json(path)
        if manifest.get("format") != FORMAT:
            raise SdrrlError(f"{path}: format '{manifest.get('format')}' is not '{FORMAT}'; preprocess again")
        for file, facts in sorted(manifest["files"].items()):
            p = self.directory / file
            if not p.is_file():
                raise SdrrlError(f"{p}: file is missing; preprocess again")
            size = p.stat().st_size
            if size != facts["bytes"]:
                raise SdrrlError(
                    f"{p}: {size} bytes, the manifest says {facts['bytes']}; the file is damaged, preprocess again"
                )
            if sha256_file(p) != facts["sha256"]:
                raise SdrrlError(f"{p}: SHA-256 differs from the manifest; the file is damaged, preprocess again")
        if tokenizer_sha256 is not None and manifest["tokenizer_sha256"] != tokenizer_sha256:
            raise SdrrlError(
                f"{path}: packed with tokenizer {manifest['tokenizer_sha256'][:12]}, the model's is "
                f"{tokenizer_sha256[:12]}; preprocess again with the model's tokenizer"
            )
        return manifest

    def __len__(self) -> int:
        return len(self.document_indices) - 1

    def subset_sizes(self) -> npt.NDArray[np.int64]:
        """|D_d| in SUBSETS order, int64 [6]."""
        return np.bincount(self.subset, minlength=len(SUBSETS)).astype(np.int64)

    def samples_of(self, pack: int) -> range:
        """Sample numbers of a pack."""
        return range(int(self.document_indices[pack]), int(self.document_indices[pack + 1]))

    def __getitem__(self, pack: int) -> Pack:
        rows = self.samples_of(pack)
        a, b = int(self.offsets[rows.start]), int(self.offsets[rows.stop])
        tokens = np.concatenate([self.indexed[i] for i in rows]).astype(np.int64)
        s = slice(rows.start, rows.stop)
        return Pack(
            tokens=tokens,
            loss_mask=np.asarray(self.loss_mask[a:b]),
            lengths=self.lengths[s],
            subset=self.subset[s],
            answer_tokens=self.answer_tokens[s],
            sample_key=self.sample_key[s],
        )
