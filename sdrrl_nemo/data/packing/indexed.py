"""Megatron's ``.bin``/``.idx`` files, whoever wrote them: opened with the checks that Megatron leaves out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.indexed_dataset import IndexedDataset

MAGIC = b"MMIDIDX\x00\x00"
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
    header = index.read_bytes()[:HEADER_BYTES]
    if header[: len(MAGIC)] != MAGIC:
        raise SdrrlError(f"{index}: no Megatron index (it does not begin with {MAGIC[:7].decode()})")
    if len(header) == HEADER_BYTES:
        sequences, documents = (int(x) for x in np.frombuffer(header, "<u8", 2, HEADER_BYTES - 16))
        expected = HEADER_BYTES + sequences * (4 + 8) + documents * 8
    if len(header) < HEADER_BYTES or index.stat().st_size < expected:
        raise SdrrlError(f"{index}: the file is truncated; write it again")
    found = IndexedDataset(str(prefix))
    wanted = int(np.asarray(found.sequence_lengths, np.int64).sum()) * np.dtype(found.index.dtype).itemsize
    size = data.stat().st_size
    if size != wanted:
        raise SdrrlError(f"{data}: {size} bytes, its index says {wanted}; the file is truncated or not this index's")
    return found
