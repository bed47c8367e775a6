"""The packed set on disk: Megatron MMIDIDX files plus a sidecar that carries what Eq. 6 needs.

One directory holds, for a set called ``train``:

    train.bin / train.idx      token ids; a *sequence* is one sample, a *document* is one pack of samples
    train.loss_mask.npy        uint8 [tokens]  1 on answer tokens (as targets), 0 on question tokens
    train.subset.npy           uint8 [samples] index into the manifest's subset_names
    train.answer_tokens.npy    int32 [samples] number of answer tokens
    train.sample_key.npy       uint64 [samples] content key of the sample in the transfer set
    train.sample_weight.npy    float64 [samples] weight of the sample in its subset; only where one of them is not 1
    train.manifest.json        written last: |D_d|, seq_length, vocabulary, tokenizer fingerprint, SHA-256 of each file

Everything is streamed to disk while packs arrive: memory does not grow with tokens, and by 8 bytes a sample.
Packs hold no padding; cu_seqlens of a pack follow from its samples' lengths. mcore's IndexedDataset reads .bin/.idx.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import canonical_json, publish, read_json_object, sha256_file, write_json
from sdrrl_nemo.compat import indexed_dataset
from sdrrl_nemo.data.packing.indexed import open_indexed
from sdrrl_nemo.data.rows import SUBSETS
from sdrrl_nemo.data.text.chat_template import TemplateConfig

FORMAT = "sdrrl-packed/4"  # 4: the manifest holds a hash of its own content
UNHASHED = "sdrrl-packed/3"
"""The format before: the same files, and a manifest whose own damage shows only where it is no longer JSON."""
OWN_HASH = "manifest_sha256"
SIDECARS: dict[str, Any] = {
    "loss_mask": np.uint8,
    "subset": np.uint8,
    "answer_tokens": np.int32,
    "sample_key": np.uint64,
}
"""Sidecar arrays and their element types."""
WEIGHTS = "sample_weight"
"""The sidecar of a set whose samples do not all weigh 1. A version that does not know it refuses such a set."""

MAX_SUBSETS = 256  # ids are uint8


@dataclass(frozen=True)
class TokenizedSample:
    """One sample of the transfer set: ``tokens`` int32 [n] and ``loss_mask`` uint8 [n], which is 1 on answer tokens."""

    key: str
    subset: str
    tokens: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.uint8]
    weight: float = 1.0
    """What the sample counts in the mean of its subset, relative to the others."""


class _NpyStream:
    """A one-dimensional .npy file that grows; the header numpy writes has room for any later length."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.path, self.dtype, self.count = path, np.dtype(dtype), 0
        self._file = open(path, "w+b")  # noqa: SIM115 - closed in close()
        self._header()

    def _header(self) -> None:
        facts = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self._file, facts)

    def extend(self, values: Any) -> None:
        data = np.asarray(values, self.dtype)
        self._file.write(data.tobytes())
        self.count += data.size

    def close(self) -> None:
        # Only now is the length known: the header is written again over its own first version, which is as long.
        self._file.seek(0)
        self._header()
        self._file.close()


class PackedWriter:
    """Writes one packed set. Nothing has its final name before ``finish``, which publishes the manifest last.

    ``subset_names``: the subsets of the set in the order of their ids, at most 256.
    """

    def __init__(
        self,
        directory: str | Path,
        name: str,
        vocab_size: int,
        seq_length: int,
        subset_names: Sequence[str] = SUBSETS,
    ) -> None:
        if len(set(subset_names)) != len(subset_names) or not 1 <= len(subset_names) <= MAX_SUBSETS:
            raise SdrrlError(f"a packed set needs 1 to {MAX_SUBSETS} different subset names, got {len(subset_names)}")
        self.directory = Path(directory)
        self.name = name
        self.vocab_size = vocab_size
        self.seq_length = seq_length
        self.subset_names = tuple(subset_names)
        self._subset_id = {d: i for i, d in enumerate(subset_names)}
        self.directory.mkdir(parents=True, exist_ok=True)
        self._bin = self._temporary("bin")
        self._builder = indexed_dataset.builder(self._bin, vocab_size)
        kinds = {**SIDECARS, WEIGHTS: np.float64}
        self._sidecars = {key: _NpyStream(self._temporary(key), dtype) for key, dtype in kinds.items()}
        self._weights = np.zeros(len(subset_names))
        self._weighted = False
        self._counts = np.zeros((len(subset_names), 3), np.int64)  # samples, tokens, answer tokens
        self._packs = 0

    def _final(self, suffix: str) -> Path:
        return self.directory / f"{self.name}.{suffix}"

    def _temporary(self, suffix: str) -> Path:
        return self.directory / f".{self.name}.{suffix}.tmp"

    def discard(self) -> None:
        """End the writer without a result: close and remove what was begun."""
        self._builder.data_file.close()
        self._bin.unlink(missing_ok=True)
        for stream in self._sidecars.values():
            stream.close()
            stream.path.unlink(missing_ok=True)

    def _refuse(self, message: str) -> NoReturn:
        self.discard()
        raise SdrrlError(message)

    def _check(self, samples: Sequence[TokenizedSample]) -> None:
        total = sum(len(s.tokens) for s in samples)
        if not samples or total > self.seq_length:
            self._refuse(f"pack {self._packs} has {total} tokens; it must hold 1 to {self.seq_length}")
        for s in samples:
            if s.subset not in self._subset_id:
                self._refuse(f"sample {s.key}: subset '{s.subset}' is not one of {', '.join(self.subset_names)}")
            # A sample's first token is nobody's target, and Eq. 6 divides by the number of answer tokens.
            if not s.loss_mask.any() or s.loss_mask[0]:
                self._refuse(f"sample {s.key} ({s.subset}) must start with a question token and have an answer token")
            if not (0 < s.weight < math.inf):
                self._refuse(f"sample {s.key} has the weight {s.weight}; it must be a positive number")
            if int(s.tokens.max()) >= self.vocab_size:
                self._refuse(f"sample {s.key} has token id {int(s.tokens.max())}, vocabulary is {self.vocab_size}")

    def add_pack(self, samples: Sequence[TokenizedSample]) -> None:
        """Append one pack; SdrrlError when it is empty, too long, or a sample has no answer token."""
        self._check(samples)
        subsets = [self._subset_id[s.subset] for s in samples]
        answers = [int(s.loss_mask.sum()) for s in samples]
        lengths = [len(s.tokens) for s in samples]
        for subset, *numbers in zip(subsets, lengths, answers, strict=True):
            self._counts[subset] += (1, *numbers)
        self._sidecars["loss_mask"].extend(np.concatenate([s.loss_mask for s in samples]))
        self._sidecars["subset"].extend(subsets)
        self._sidecars["answer_tokens"].extend(answers)
        self._sidecars["sample_key"].extend([int(s.key, 16) for s in samples])
        self._sidecars[WEIGHTS].extend([s.weight for s in samples])
        np.add.at(self._weights, subsets, [s.weight for s in samples])
        self._weighted = self._weighted or any(s.weight != 1.0 for s in samples)
        # One document of many sequences: Megatron's index then keeps where each sample of the pack ends.
        tokens = torch.from_numpy(np.concatenate([s.tokens for s in samples]).astype(np.int64))
        self._builder.add_document(tokens, lengths)
        self._packs += 1

    def finish(self, extra: dict[str, Any]) -> dict[str, Any]:
        """Publish all files and, last, the manifest (``extra`` is merged in); returns the manifest.

        ``extra`` must hold ``tokenizer_sha256``.
        """
        if self._packs == 0:
            self._refuse("no sample is left to pack; look at the drop reasons of the stages before")
        # A set without manifest cannot be opened, so a kill between the renames leaves no mixture of old and new files.
        self._final("manifest.json").unlink(missing_ok=True)
        idx = self._temporary("idx")
        self._builder.finalize(str(idx))
        publish(self._bin, self._final("bin"))
        publish(idx, self._final("idx"))
        for key, stream in self._sidecars.items():
            stream.close()
            if key != WEIGHTS or self._weighted:
                publish(stream.path, self._final(f"{key}.npy"))
            else:
                stream.path.unlink()
                self._final(f"{key}.npy").unlink(missing_ok=True)
        manifest = self._manifest(extra)
        write_json(self._final("manifest.json"), manifest)
        return manifest

    def _manifest(self, extra: dict[str, Any]) -> dict[str, Any]:
        samples, tokens, _ = (int(n) for n in self._counts.sum(0))
        facts = ("samples", "tokens", "answer_tokens")
        manifest = {
            **extra,
            "format": FORMAT,
            "vocab_size": self.vocab_size,
            "seq_length": self.seq_length,
            "packs": self._packs,
            "samples": samples,
            "tokens": tokens,
            "packing_efficiency": tokens / (self._packs * self.seq_length),
            "subset_names": list(self.subset_names),
            "subsets": {
                d: dict(zip(facts, map(int, row), strict=True)) | ({"weights": float(sum_)} if self._weighted else {})
                for d, row, sum_ in zip(self.subset_names, self._counts, self._weights, strict=True)
            },
            "files": {
                n: {"bytes": (self.directory / n).stat().st_size, "sha256": sha256_file(self.directory / n)}
                for n in file_names(self.name, self._weighted)
            },
        }
        return manifest | {OWN_HASH: own_hash(manifest)}


def file_names(name: str, weighted: bool = False) -> list[str]:
    """The files of a set besides its manifest; ``weighted``: of one whose samples do not all weigh 1."""
    sidecars = [*SIDECARS, *([WEIGHTS] if weighted else [])]
    return [f"{name}.bin", f"{name}.idx", *(f"{name}.{s}.npy" for s in sidecars)]


def rendering(directory: str | Path, name: str) -> dict[str, Any]:
    """What a set's manifest says of the chat template that its samples were rendered with: the arguments of
    `load_chat` for the model's folder. A folder's own template is taken from the folder, so that another one shows as
    another tokenizer; one that the configuration named comes from the manifest."""
    path = Path(directory) / f"{name}.manifest.json"
    manifest = read_json_object(path) if path.is_file() else {}
    asked = manifest.get("templates")
    try:
        templates = TemplateConfig(**asked) if asked else None
    except TypeError as e:
        raise SdrrlError(f"{path}: 'templates' is of the wrong kind ({e}); preprocess again") from None
    if templates is None or not templates.chat_template:
        return {"templates": templates}
    return {"rendered": str(manifest.get("chat_template") or "")}


def own_hash(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content but for this hash itself."""
    rest = {k: v for k, v in manifest.items() if k != OWN_HASH}
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()


@dataclass(frozen=True)
class Pack:
    """One pack: tokens int64 [n], loss_mask uint8 [n], and per sample lengths, subset ids, answer lengths, keys."""

    tokens: npt.NDArray[np.int64]
    loss_mask: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]
    subset: npt.NDArray[np.integer[Any]]
    answer_tokens: npt.NDArray[np.int32]
    sample_key: npt.NDArray[np.uint64]


class PackedSamples:
    """The samples of one packed set or of several, and which of them make a pack; ``len`` is the number of packs.

    Arrays over samples: ``lengths`` int64 (tokens), ``subset`` (index into ``subset_names``), ``answer_tokens``,
    ``sample_key``, and ``sample_weight`` float64, or None where every sample weighs 1. ``document_indices`` int64
    [packs + 1] bounds the packs.
    """

    manifest: dict[str, Any]
    subset_names: tuple[str, ...]
    lengths: npt.NDArray[np.int64]
    subset: npt.NDArray[np.integer[Any]]
    answer_tokens: npt.NDArray[np.int32]
    sample_key: npt.NDArray[np.uint64]
    sample_weight: npt.NDArray[np.float64] | None
    document_indices: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.document_indices) - 1

    def subset_sizes(self) -> npt.NDArray[np.int64]:
        """|D_d| in the order of ``subset_names``, int64 [len(subset_names)]."""
        return np.bincount(self.subset, minlength=len(self.subset_names)).astype(np.int64)

    def samples_of(self, pack: int) -> range:
        """Sample numbers of a pack."""
        return range(int(self.document_indices[pack]), int(self.document_indices[pack + 1]))

    def sample(self, number: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """Token ids [n] of a sample, and its loss mask [n]."""
        return self.span(range(number, number + 1))

    def span(self, samples: range) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """The same of consecutive ``samples`` of one pack, one behind the other; views of the files, to be copied."""
        raise NotImplementedError


class PackedDataset(PackedSamples):
    """Random access to the packs of a verified set; ``len`` is the number of packs."""

    def __init__(self, directory: str | Path, name: str = "train", tokenizer_sha256: str | None = None) -> None:
        """Open and verify. SdrrlError names the damaged or mismatching file.

        ``tokenizer_sha256``: fingerprint of the tokenizer the model uses; None skips that check.
        """
        self.directory = Path(directory)
        self.name = name
        self.manifest = self._verified_manifest(tokenizer_sha256)
        self.subset_names = tuple(self.manifest["subset_names"])
        prefix = self.directory / name
        self.indexed = open_indexed(prefix)
        self.loss_mask = np.load(f"{prefix}.loss_mask.npy", mmap_mode="r")
        self.subset = np.load(f"{prefix}.subset.npy")
        self.answer_tokens = np.load(f"{prefix}.answer_tokens.npy")
        self.sample_key = np.load(f"{prefix}.sample_key.npy")
        weighted = f"{name}.{WEIGHTS}.npy" in self.manifest["files"]
        self.sample_weight = np.load(f"{prefix}.{WEIGHTS}.npy") if weighted else None
        self.lengths = np.asarray(self.indexed.sequence_lengths, np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.document_indices = np.asarray(self.indexed.document_indices, np.int64)

    def _verified_manifest(self, tokenizer_sha256: str | None) -> dict[str, Any]:
        path = self.directory / f"{self.name}.manifest.json"
        if not path.is_file():
            raise SdrrlError(f"{path}: no packed set here; run tools/preprocess_sdrrl.py first")
        manifest = read_json_object(path)
        if manifest.get("format") not in (FORMAT, UNHASHED):
            raise SdrrlError(
                f"{path}: format '{manifest.get('format')}' is not '{FORMAT}' of this version; preprocess again"
            )
        if manifest["format"] == FORMAT and manifest.get(OWN_HASH) != own_hash(manifest):
            raise SdrrlError(
                f"{path}: its content is not what its {OWN_HASH} says; the file is damaged, preprocess again"
            )
        try:
            known = [sorted(file_names(self.name, weighted)) for weighted in (False, True)]
            if sorted(manifest["files"]) not in known:
                raise SdrrlError(f"{path}: lists other files than a packed set has; preprocess again")
            self._verify_files(manifest)
            self._verify_tokenizer(path, manifest, tokenizer_sha256)
            tuple(manifest["subset_names"])
        except (KeyError, TypeError, AttributeError) as e:
            raise SdrrlError(f"{path}: '{e}' is missing or of the wrong kind; preprocess again") from None
        return manifest

    def _verify_files(self, manifest: dict[str, Any]) -> None:
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

    def _verify_tokenizer(self, path: Path, manifest: dict[str, Any], tokenizer_sha256: str | None) -> None:
        if tokenizer_sha256 is not None and manifest["tokenizer_sha256"] != tokenizer_sha256:
            raise SdrrlError(
                f"{path}: packed with tokenizer {manifest['tokenizer_sha256'][:12]}, the model's is "
                f"{tokenizer_sha256[:12]}; preprocess again with the model's tokenizer"
            )

    def span(self, samples: range) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """Token ids [n] of consecutive samples, in the file's own type, and their loss masks [n]."""
        a, b = int(self.offsets[samples.start]), int(self.offsets[samples.stop])
        # a read may go on behind the first sequence: the next one begins where it ends (`open_indexed` checks that)
        return self.indexed.get(samples.start, 0, b - a), np.asarray(self.loss_mask[a:b])

    def __getitem__(self, pack: int) -> Pack:
        rows = self.samples_of(pack)
        tokens, loss_mask = self.span(rows)
        s = slice(rows.start, rows.stop)
        return Pack(
            tokens=tokens.astype(np.int64),
            loss_mask=loss_mask,
            lengths=self.lengths[s],
            subset=self.subset[s],
            answer_tokens=self.answer_tokens[s],
            sample_key=self.sample_key[s],
        )
