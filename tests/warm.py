"""Ranks and tools forked from one process that has imported NeMo and Megatron: 17 seconds of CPU a process otherwise.

The environment of a rank is the one torchrun gives it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from sdrrl_nemo.study.execute import PRELOAD, run_tool
from tests.launch import ROOT, environment

POLL = 0.05


@cache
def _server() -> Any:
    """The context whose fork server has imported everything; it lives as long as this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    return context


def torchrun(processes: int, script: Path | str, *args: str, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    """``tests.launch.torchrun`` without the import; the first rank that fails ends the others."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    common |= {"LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "warm"}
    ranks = [{**environment(), **common, "RANK": str(r), "LOCAL_RANK": str(r)} for r in range(processes)]
    return _run(ranks, [str(script), *args], timeout)


def python(script: Path | str, *args: str, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    """``tests.launch.python`` without the import."""
    return _run([environment()], [str(script), *args], timeout)


def _run(environments: list[dict[str, str]], command: list[str], timeout: int) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{i}.log" for i in range(len(environments))]
        jobs = [
            _server().Process(target=_body, args=(env, command, str(log)))
            for env, log in zip(environments, logs, strict=True)
        ]
        for job in jobs:
            job.start()
        deadline = time.monotonic() + timeout
        try:
            while any(job.exitcode is None for job in jobs) and not any(job.exitcode for job in jobs):
                if time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired(command, timeout, "".join(p.read_text() for p in logs))
                time.sleep(POLL)
            code = next((job.exitcode for job in jobs if job.exitcode), 0)
        finally:
            for job in jobs:
                if job.exitcode is None:
                    os.kill(job.pid, signal.SIGKILL)
                job.join()
        text = "".join(p.read_text(errors="replace") for p in logs)
    return subprocess.CompletedProcess(command, code, text)


def _body(env: dict[str, str], command: list[str], log: str) -> None:
    """In the forked process, as the study runs its stages, with a rank's environment."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    run_tool(command, log, threads=1)
