"""Start the project's commands as a user does: torchrun, tools; return what they printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def environment() -> dict[str, str]:
    """The caller's environment with one thread a process and the checkout importable."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def torchrun(processes: int, script: Path | str, *args: str, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    """Run a script under torchrun on this machine; stdout and stderr together in ``.stdout``."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return _run([*command, str(script), *args], timeout)


def python(script: Path | str, *args: str, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter."""
    return _run([sys.executable, str(script), *args], timeout)


def _run(command: list[str], timeout: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
