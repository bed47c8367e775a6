"""Headers of safetensors files, read without the weights: what a file holds, or what it is in place of one.

The format (https://github.com/huggingface/safetensors): eight bytes with the length of a JSON object, the object with
type, shape and place of each tensor, then the tensors one after another, without a gap.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import readable

LARGEST_HEADER = 100_000_000
"""Bytes; the library itself reads no larger one."""
BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
BYTES |= {"I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8, "C64": 8}
OTHERS = (
    (b"version https://git-lfs", "a git-lfs pointer: fetch the file itself (git lfs pull)"),
    (b"<", "a web page or XML, probably the answer to a download that failed"),
    (b"PK", "a zip archive, as PyTorch's own format is"),
    (b"\x80", "a Python pickle, as PyTorch's own format is"),
    (b"GGUF", "a GGUF file: tools/import_gguf.py makes a folder of it"),
    (b"{", "JSON, without the eight bytes before it"),
)
"""How files begin that lie under the name of a safetensors file."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: ``begin`` and ``end`` are its bytes, counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name; SdrrlError for one that is absent, cut, or no safetensors file."""
    with readable(file):
        if not file.is_file():
            raise SdrrlError(f"{file}: no such file; fetch the model again")
        size = file.stat().st_size
        with open(file, "rb") as f:
            head = f.read(8)
            length = int.from_bytes(head, "little")
            start = head + f.read(24)
            if size < 8 or length > LARGEST_HEADER or length > size - 8 or start[8:9] != b"{":
                raise SdrrlError(f"{file}: {_in_place(start, size, length)}")
            f.seek(8)
            raw = f.read(length)
    try:
        header = json.loads(raw)
    except ValueError:
        raise SdrrlError(f"{file}: damaged, its header is not JSON; fetch it again") from None
    if not isinstance(header, dict):
        raise SdrrlError(f"{file}: damaged, its header is no JSON object; fetch it again")
    header.pop("__metadata__", None)
    found = {name: _stored(file, name, facts, 8 + length) for name, facts in header.items()}
    _check_places(file, found, 8 + length, size)
    return found


def _in_place(start: bytes, size: int, length: int) -> str:
    """What a file is that does not begin as a safetensors file does."""
    if not size:
        return "an empty file, no safetensors file; fetch it again"
    for magic, what in OTHERS:
        if start.lstrip().startswith(magic) and not (magic == b"{" and start[8:9] == b"{"):
            return f"no safetensors file but {what}"
    if start[8:9] == b"{" and length <= LARGEST_HEADER:
        return f"cut: it has {size:,} bytes, its header alone {length + 8:,}; fetch it again"
    return "no safetensors file, or damaged; fetch it again"


def _stored(file: Path, name: str, facts: Any, begin: int) -> StoredTensor:
    try:
        dtype, shape, (first, last) = facts["dtype"], tuple(facts["shape"]), facts["data_offsets"]
        whole = all(isinstance(n, int) and n >= 0 for n in (*shape, first, last))
        if not whole or (last - first != math.prod(shape) * BYTES.get(dtype, 0) and dtype in BYTES):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise SdrrlError(f"{file}: damaged, its header makes no sense for tensor '{name}'; fetch it again") from None
    return StoredTensor(str(dtype), shape, file, begin + first, begin + last)


def _check_places(file: Path, found: dict[str, StoredTensor], begin: int, size: int) -> None:
    """Tensors lie one after another up to the end of the file."""
    at = begin
    for name, tensor in sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != at:
            raise SdrrlError(f"{file}: damaged, tensor '{name}' is not where the one before ends; fetch it again")
        at = tensor.end
    if size < at:
        raise SdrrlError(f"{file}: cut: it has {size:,} bytes, its header speaks of {at:,}; fetch it again")
    if size > at:
        raise SdrrlError(f"{file}: damaged: it has {size:,} bytes, its header speaks of {at:,}; fetch it again")
