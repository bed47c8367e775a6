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
    width, size = np.dtype(DType.dtype_from_code(code)).itemsize, data.stat().st_size
    wanted = _check_places(index, sequences, documents, width)
    if size != wanted:
        raise SdrrlError(f"{data}: {size} bytes, its index says {wanted}; the file is truncated or not this index's")
    try:
        return IndexedDataset(str(prefix))
    except Exception as e:  # an empty .bin cannot be mapped
        raise SdrrlError(f"{index}: Megatron cannot read it ({' '.join(str(e).split()) or type(e).__name__})") from None


def _check_places(index: Path, sequences: int, documents: int, width: int) -> int:
    """Bytes of all sequences. SdrrlError unless each begins where the one before ends and documents follow one another.

    Before mcore opens the file: it takes every place as it stands, and a refusal of its own leaves a trace behind.
    """
    if documents == 0:
        raise SdrrlError(f"{index}: has no document, not even the first one's beginning; the file is damaged")
    raw = np.memmap(index, np.uint8, "r", HEADER_BYTES, shape=(sequences * 12 + documents * 8,))
    lengths = np.frombuffer(raw, "<i4", sequences).astype(np.int64)
    places = np.frombuffer(raw, "<i8", sequences, sequences * 4)
    bounds = np.frombuffer(raw, "<i8", documents, sequences * 12)
    ends = np.cumsum(lengths) * width
    inside = (lengths >= 0).all() and (places == ends - lengths * width).all()
    ordered = bounds[0] == 0 and bounds[-1] == sequences and (np.diff(bounds) >= 0).all()
    if not inside or not ordered:
        raise SdrrlError(f"{index}: places a sequence outside of its data or its document; the file is damaged")
    return int(ends[-1]) if sequences else 0
