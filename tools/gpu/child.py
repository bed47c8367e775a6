"""Processes of the check: each writes a log, has a time limit, and leaves none of its own behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.provenance import IMPORT_PATHS, REPO_ROOT

SAYS = ("error: ", "Error: ", "Error(", "Exception: ")
"""What the line of a log has that says why a process ended; torchrun writes a page after it."""
LONGEST = 300
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # megatron-core compiles an allocator for inference as it is imported, under a lock that a killed process leaves
    # behind, for which the next one would wait without end. Where nothing can be written it does without.
    "TORCH_EXTENSIONS_DIR": os.devnull,
}
"""Of every child: no network, no compiler at import."""
NO_TF32 = {"NVIDIA_TF32_OVERRIDE": "0", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "0"}
"""For runs in fp32 that are compared with a CPU: NVIDIA's images let such products round to TF32, which no CPU does."""


def environment(threads: int) -> dict[str, str]:
    """Of a child: this checkout's code, no network, so many threads."""
    paths = [*IMPORT_PATHS, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **SETTINGS, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths)}


def torchrun(script: str, *arguments: str, processes: int = 1) -> list[str]:
    """The command that starts a script under torchrun on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, script, *arguments]


@dataclass
class Child:
    """A process at work."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, command: Sequence[str], log: Path, threads: int, more: Mapping[str, str] | None = None) -> Child:
        """Its output goes to ``log``; it leads a session of its own, so that Ctrl-C reaches the check alone."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as out:
            process = subprocess.Popen(
                list(command),
                cwd=REPO_ROOT,
                env={**environment(threads), **(more or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, log)

    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""

    def open_gate(self, gate: Path | None) -> None:
        """Let it go, where it waits at a gate."""
        if gate is not None:
            gate.parent.mkdir(parents=True, exist_ok=True)
            gate.touch()

    def finish(self, limit: float, codes: Sequence[int] = (0,)) -> str:
        """Wait; its output. SdrrlError with its own sentence where it ends with a code that is none of ``codes``, or
        runs longer than ``limit`` seconds.
        """
        try:
            code = self.process.wait(max(1.0, limit))
        except subprocess.TimeoutExpired:
            self.end()
            raise SdrrlError(f"took longer than {limit:.0f} s; its output is in {_shown(self.log)}") from None
        finally:
            self.end()
        if code not in codes:
            raise SdrrlError(f"exit code {code}: {why(self.text())}; its output is in {_shown(self.log)}")
        return self.text()

    def end(self) -> None:
        """Kill what is left of it: ranks are sessions of their own, so its process group would not be enough."""
        try:
            launcher = psutil.Process(self.process.pid)
            left = [*launcher.children(recursive=True), launcher]
        except psutil.NoSuchProcess:
            left = []
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()


def why(log: str) -> str:
    """The last line that names an error, else the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if any(word in line for word in SAYS) and "ChildFailedError" not in line]
    return (errors or lines or ["it said nothing"])[-1][-LONGEST:]


def _shown(path: Path) -> str:
    return str(path.relative_to(REPO_ROOT)) if path.is_relative_to(REPO_ROOT) else str(path)
