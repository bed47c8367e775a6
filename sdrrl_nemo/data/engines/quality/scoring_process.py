"""A quality model in a process with another Python, fed over a pipe: JSON lines in, JSON lines out."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import BROKEN_JSON

PYTHON = ".venv-comet/bin/python"
"""Made by ``make comet-env``."""
DIGITS = 6
"""Scores are rounded: the same segment in another batch differs in the seventh digit (fp32)."""
PRECISIONS = ("fp32", "bf16", "fp16")
Segment = dict[str, str]


class ScoringProcess(ABC):
    """Scores of a model in a process of its own, which starts with the first call and ends with this one.

    Args:
        worker: the program, a file of this folder that speaks the protocol of comet_worker.py.
        python: interpreter of the environment that has what the worker imports.
        options: the first request; ``precision`` and ``batch_size`` among them.
        name: who asks, the start of error sentences; ``kind`` names the worker in them.
    """

    def __init__(self, worker: Path, python: str, options: dict[str, Any], name: str, kind: str) -> None:
        if options["precision"] not in PRECISIONS:
            raise SdrrlError(f"{name}: precision '{options['precision']}' is not one of {', '.join(PRECISIONS)}")
        if options["batch_size"] < 1:
            raise SdrrlError(f"{name}: batch_size is {options['batch_size']}; give 1 or more")
        self.worker, self.python, self.options = worker, python, options
        self.name, self.kind = name, kind
        self._process: subprocess.Popen[str] | None = None
        self._asked = 0

    @abstractmethod
    def files(self) -> list[Path]:
        """What the model is read from; SdrrlError where it is not there."""

    def check(self) -> None:
        """SdrrlError where the model's files or its environment are not there; nothing is started."""
        self.files()
        self._check_python()

    def _check_python(self) -> None:
        if not Path(self.python).exists():
            raise SdrrlError(f"{self.name}: {self.python} is not there; make COMET's environment: make comet-env")

    def score(self, segments: Sequence[Segment]) -> list[float]:
        """One score a segment {"src", "mt"[, "ref"]}, rounded to 6 digits."""
        return [round(x, DIGITS) for x in self._numbers("scores", segments)]

    def lengths(self, segments: Sequence[Segment]) -> list[int]:
        """Subwords of each segment as the encoder reads it: all its texts together."""
        return [int(x) for x in self._numbers("lengths", segments)]

    def _numbers(self, what: str, segments: Sequence[Segment]) -> list[float]:
        """One number a segment from the worker: its ``scores`` or its ``lengths``."""
        if not segments:
            return []
        if self._process is None:
            self._start()
        self._asked += 1
        reply = self._ask({"id": self._asked, "want": what, "data": list(segments)})
        found = reply.get(what)
        numbers = isinstance(found, list) and all(isinstance(x, float | int) and math.isfinite(x) for x in found)
        if reply.get("id") != self._asked or not numbers or len(reply[what]) != len(segments):
            raise self._failed(f"gave {json.dumps(reply)[:200]} for {len(segments)} segments")
        return [float(x) for x in reply[what]]

    def _start(self) -> None:
        self.files()
        self._check_python()
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed with the worker
        read, write = os.pipe()
        try:
            self._process = subprocess.Popen(
                # Isolated: a file beside the worker is named comet.py.
                [self.python, "-I", str(self.worker), str(write)],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(write,),
                text=True,
                encoding="utf-8",
            )
        except OSError as e:
            os.close(read)
            self._log.close()
            raise SdrrlError(
                f"{self.name}: {self.python} cannot be started ({e.strerror}); make COMET's environment: make comet-env"
            ) from None
        finally:
            os.close(write)
        self._replies = os.fdopen(read, encoding="utf-8", errors="replace")
        self._ask(self.options)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one line, wait for one; SdrrlError when the worker died, complained or does not speak the protocol."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed("ended") from None
        line = self._replies.readline()
        if not line:
            raise self._failed("ended")
        try:
            reply = json.loads(line)
        except BROKEN_JSON:
            raise self._failed(f"answered '{line.strip()[:100]}', which is no JSON") from None
        if not isinstance(reply, dict):
            raise self._failed(f"answered '{line.strip()[:100]}'")
        if "error" in reply:
            raise self._failed(f"says: {reply['error']}")
        return reply

    def _failed(self, what: str) -> SdrrlError:
        """The sentence, with the exit status and the worker's own last words; the worker is gone afterwards."""
        process, self._process = self._process, None
        assert process is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]
        try:
            status = process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        self._replies.close()
        self._log.seek(0)
        last = [line.strip() for line in self._log.read().splitlines() if line.strip()][-1:]
        self._log.close()
        words = f"; its last words: {last[0][:300]}" if last and "says:" not in what else ""
        return SdrrlError(f"{self.kind}'s worker ({self.python}) {what} (exit status {status}){words}")

    def close(self) -> None:
        """End the worker."""
        process, self._process = self._process, None
        if process is not None:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait()
            self._replies.close()
            self._log.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_replies", "_log")} | {"_process": None}

    def __del__(self) -> None:
        if getattr(self, "_process", None) is not None:
            self.close()
