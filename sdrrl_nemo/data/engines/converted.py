"""Models converted for CTranslate2: once, into a folder of a cache whose name holds the content of its source."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import fsync_dir, write_json
from sdrrl_nemo.common.optional import require
from sdrrl_nemo.data.engines.contents import is_sealed, seal

PACKAGE, EXTRA = "ctranslate2", "translate"
CACHE = "work/cache/ctranslate2"
DEVICES = ("auto", "cpu", "cuda")
STORED = {
    "auto": "float32",
    "default": "float32",
    "float32": "float32",
    "int16": "int16",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int8": "int8",
    "int8_float32": "int8",
    "int8_float16": "int8_float16",
    "int8_bfloat16": "int8_bfloat16",
}
"""Compute type -> number type of the converted weights on disk."""
SOURCE_FILES = ("*.safetensors", "*.bin", "*.json", "*.model", "*.txt")
"""What a conversion is made of; older versions of CTranslate2 wrote a vocabulary as text."""
FACTS = "converted.json"
"""What is to be known of a converted folder, in it."""


def check_machine(
    where: str, compute_type: str, device: str, devices: Sequence[int], inter_threads: int, intra_threads: int
) -> None:
    """SdrrlError, which begins with ``where``, for options that CTranslate2 cannot take."""
    for key, value, known in (("compute_type", compute_type, STORED), ("device", device, DEVICES)):
        if value not in known:
            raise SdrrlError(f"{where}: {key} '{value}' is unknown{suggest(value, known)}")
    if not devices or min(devices) < 0 or inter_threads < 1 or intra_threads < 0:
        raise SdrrlError(f"{where}: devices (numbers >= 0), inter_threads >= 1 and intra_threads >= 0 are needed")


def converted_once(folder: Path, convert: Callable[[Path], dict[str, Any]]) -> Path:
    """``folder``, made now where it is not there or no longer what was made (`is_sealed`).

    ``convert`` writes the model into the folder it is given, which does not exist, and returns the facts that are
    kept beside it; ``folder`` gets its name when all of it is there. Processes that start together make it once.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{folder.name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_sealed(folder):
            temporary = folder.with_name(f".{folder.name}.unfinished")
            for leftover in (temporary, folder):
                if leftover.exists():
                    shutil.rmtree(leftover)
            write_json(temporary / FACTS, convert(temporary))
            temporary.rename(folder)
            fsync_dir(folder.parent)
            seal(folder)
    return folder


def load(
    kind: str, folder: Path, compute_type: str, device: str, devices: Sequence[int], threads: Sequence[int]
) -> Any:
    """CTranslate2's ``Translator`` or ``Generator`` (``kind``) of a converted folder; ``threads``: (batches at a time,
    threads of each on the CPU). SdrrlError where it cannot be loaded."""
    ctranslate2 = require(PACKAGE, PACKAGE, EXTRA)
    on_cpu = device == "cpu" or (device == "auto" and not ctranslate2.get_cuda_device_count())
    try:
        return getattr(ctranslate2, kind)(
            str(folder),
            device=device,
            device_index=0 if on_cpu else list(devices),
            compute_type=compute_type,
            inter_threads=threads[0],
            intra_threads=threads[1],
        )
    except (ValueError, RuntimeError) as e:
        raise SdrrlError(f"{folder}: CTranslate2 cannot load it ({' '.join(str(e).split())})") from None
