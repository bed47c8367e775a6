"""Finished tasks on disk: one atomic JSON file each, found again by model fingerprint and settings."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key, read_json, write_json


class TaskStore:
    """Results of one model folder: ``<output_dir>/tasks/<model fingerprint>/<task>.<settings key>.json``.

    The settings key covers everything that can change the result (held-out file, counts, dtype, package versions),
    so a changed setting is a new task and an unchanged one is never computed twice.
    """

    def __init__(self, output_dir: str | Path, fingerprint: str) -> None:
        self.directory = Path(output_dir) / "tasks" / fingerprint

    def path(self, task: str, settings: dict[str, Any]) -> Path:
        """Where the result of ``task`` under ``settings`` lies or will lie."""
        return self.directory / f"{task}.{content_key(settings)}.json"

    def load(self, task: str, settings: dict[str, Any]) -> dict[str, Any] | None:
        """The stored result, or None when the task has not been finished yet."""
        path = self.path(task, settings)
        if not path.is_file():
            return None
        stored = read_json(path)
        if not isinstance(stored, dict) or "result" not in stored:
            raise SdrrlError(f"{path}: not a stored task result; remove the file and run again")
        result: dict[str, Any] = stored["result"]
        return result

    def save(self, task: str, settings: dict[str, Any], result: dict[str, Any]) -> None:
        """Write the result whole or not at all."""
        write_json(self.path(task, settings), {"task": task, "settings": settings, "result": result})


def pack_array(array: npt.NDArray[np.float32]) -> dict[str, Any]:
    """float32 array -> JSON object (shape and base64 of the little-endian bytes)."""
    data = np.ascontiguousarray(array, dtype="<f4")
    return {"shape": list(data.shape), "float32": base64.b64encode(data.tobytes()).decode("ascii")}


def unpack_array(packed: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Inverse of pack_array."""
    flat = np.frombuffer(base64.b64decode(packed["float32"]), dtype="<f4")
    return flat.reshape(packed["shape"]).astype(np.float32)
