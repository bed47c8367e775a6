"""Stages for the tests of execution; in a module of their own, so that worker processes can import them."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import RowError
from sdrrl_nemo.data.engines.base import Translator
from sdrrl_nemo.data.execution import Outcome, Row, Stage


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's own."""


class CountingTranslator(Translator):
    """Leaves a file each time it is loaded."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @cached_property
    def _model(self) -> str:
        Path(self.folder, f"loaded-{os.getpid()}-{time.monotonic_ns()}").touch()
        return "!"

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        return [text + self._model for text in texts]


class Flaky(Stage):
    """Triples numbers. ``trouble``: number -> what happens at it.

    ``raise``: always; ``refuse``: an engine cannot take the row; ``kill once``: the process dies, the first time;
    ``kill``: every time; ``segfault``: every time, as native code does; ``oserror once``; ``disk``: a file that is too
    large for this process; ``oom N``: more than N rows together do not fit.
    """

    def __init__(
        self, trouble: dict[int, str] | None = None, folder: str = "", shard_size: int = 4, name: str = "flaky"
    ) -> None:
        self.name, self.trouble, self.folder, self.shard_size = name, trouble or {}, folder, shard_size
        self.engine = CountingTranslator(folder) if folder else None

    def settings(self) -> Any:
        return "flaky"

    def _first_time(self, n: int) -> bool:
        try:
            Path(self.folder, f"seen-{n}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _meet(self, n: int, together: int) -> None:
        kind = self.trouble.get(n, "")
        if kind == "raise":
            raise ValueError(f"cannot do {n}: <object at 0x7f{os.getpid():010x}>")
        if kind == "refuse":
            raise RowError(f"row {n} is too long", "too long for the engine")
        if kind == "kill" or (kind == "kill once" and self._first_time(n)):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "segfault":
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            ctypes.string_at(0)
        if kind == "oserror" or (kind == "oserror once" and self._first_time(n)):
            raise ConnectionResetError("the server went away")
        if kind.startswith("oom") and together > int(kind.split()[1]):
            raise OutOfMemoryError("out of memory")

    def process(self, rows: list[Row]) -> Outcome:
        for row in rows:
            self._meet(row["n"], len(rows))
        marks = self.engine.translate([""] * len(rows), "", "") if self.engine else [""] * len(rows)
        out = [
            {"key": row["key"], "n": 3 * row["n"], "mark": m}
            for row, m in zip(rows, marks, strict=True)
            if row["n"] % 5
        ]
        rejects = [{"key": row["key"], "reason": "divisible by five"} for row in rows if not row["n"] % 5]
        return Outcome(out, len(rows), len(out), rejects)


class Large(Stage):
    """One row becomes many bytes."""

    name = "large"
    shard_size = 1

    def __init__(self, size: int) -> None:
        self.size = size

    def settings(self) -> Any:
        return self.size

    def process(self, rows: list[Row]) -> Outcome:
        out = [{"key": row["key"], "text": "x" * (self.size if row["n"] == 3 else 10)} for row in rows]
        return Outcome(out, len(rows), len(out))
