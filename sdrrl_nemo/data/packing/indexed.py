"""Megatron's ``.bin``/``.idx`` files, whoever wrote them: opened with the checks that Megatron leaves out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.indexed_dataset import DType, IndexedDataset

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER_BYTES = 34
"""Magic, version (8), dtype (1), sequences (8), documents (8)."""


def open_indexed(prefix: str | Path) -> IndexedDataset:
    """The sequences of ``prefix.bin`` and ``prefix.idx``: what this project, Megatron-LM's ``preprocess_data.py`` or
    mcore's IndexedDatasetBuilder writes. ``[i]`` is one sequence of token ids; ``document_indices`` bounds documents.

    SdrrlError names the file that is missing, no index, or not as long as the index says (mcore would read beyond the
    end of a truncated file).
    """
    index, data = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    for path in (index, data):
        if not path.is_file():
            raise SdrrlError(f"{path}: file is missing; Megatron's data are a .bin and an .idx of one name")
    with open(index, "rb") as f:
        header = f.read(HEADER_BYTES)
    if header[: len(MAGIC)] != MAGIC:
        raise SdrrlError(f"{index}: no Megatron index (it does not begin with {MAGIC[:7].decode()})")
    if len(header) == HEADER_BYTES:
        sequences, documents = (int(x) for x in np.frombuffer(header, "<u8", 2, HEADER_BYTES - 16))
        expected = HEADER_BYTES + sequences * (4 + 8) + documents * 8
    if len(header) < HEADER_BYTES or index.stat().st_size < expected:
        raise SdrrlError(f"{index}: the file is truncated; write it again")
    version, code = int(np.frombuffer(header, "<u8", 1, len(MAGIC))[0]), header[len(MAGIC) + 8]
    if version != VERSION or code not in {kind.value for kind in DType}:
        raise SdrrlError(f"{index}: version {version}, number type {code} are none of Megatron's; the file is damaged")
    try:
        found = IndexedDataset(str(prefix))
    except Exception as e:  # mcore asserts on version and number type, and numpy on what it maps
        raise SdrrlError(f"{index}: Megatron cannot read it ({' '.join(str(e).split()) or type(e).__name__})") from None
    wanted = int(np.asarray(found.sequence_lengths, np.int64).sum()) * np.dtype(found.index.dtype).itemsize
    size = data.stat().st_size
    if size != wanted:
        raise SdrrlError(f"{data}: {size} bytes, its index says {wanted}; the file is truncated or not this index's")
    _check_places(index, found, size)
    return found


def _check_places(index: Path, found: IndexedDataset, size: int) -> None:
    """SdrrlError unless every sequence lies inside the data and documents follow one another; mcore trusts the file."""
    lengths = np.asarray(found.sequence_lengths, np.int64)
    places = np.asarray(found.index.sequence_pointers, np.int64)
    ends = lengths * np.dtype(found.index.dtype).itemsize
    documents = np.asarray(found.document_indices, np.int64)
    inside = (lengths >= 0) & (places >= 0) & (places <= size - ends)
    ordered = len(documents) > 0 and documents[0] == 0 and documents[-1] == len(lengths)
    if not inside.all() or not ordered or (np.diff(documents) < 0).any():
        raise SdrrlError(f"{index}: places a sequence outside of its data or its document; the file is damaged")
