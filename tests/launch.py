"""Start the project's commands as a user does: torchrun, tools; return what they printed."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORT_PATHS = (str(ROOT), str(ROOT / "kernels"))
PARTS_OF_A_TOOL = ROOT / "tools" / "gpu"
"""What tools/gpu_check.py is made of: no scripts that people start."""


def is_script(path: Path) -> bool:
    """Whether people start a file of tools/ or recipes/, which scripts of several files keep their parts in too."""
    return path.parent != PARTS_OF_A_TOOL and 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")


_tried = itertools.count()


def free_port() -> int:
    """A port that nobody listens on and that the kernel gives to no connection by itself (those begin at 32768).

    Test processes side by side begin at different ones, so that none takes what another is about to use.
    """
    while True:
        port = 10_000 + (os.getpid() * 37 + next(_tried)) % 20_000
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def environment() -> dict[str, str]:
    """The caller's environment with one thread a process and the checkout importable."""
    paths = [*IMPORT_PATHS, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def torchrun(processes: int, script: Path | str, *args: str, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    """Run a script under torchrun on this machine; stdout and stderr together in ``.stdout``."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return _run([*command, str(script), *args], timeout)


def python(script: Path | str, *args: str, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter."""
    return _run([sys.executable, str(script), *args], timeout)


def descendants(pid: int) -> list[int]:
    """Process ids below ``pid``; ranks are sessions of their own, so a process group is not enough."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def signalled(pids: list[int], number: int) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


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
