"""Ranks and tools forked from one process that has imported NeMo and Megatron: 17 seconds of CPU a process otherwise.

The environment of a rank is the one torchrun gives it. Where torchrun itself is what is tested, ``for_torchrun`` lets
a real one start such ranks.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import select
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any

from sdrrl_nemo.study.execute import PRELOAD, run_tool
from tests.launch import ROOT, environment, free_port
from tests.runs import steps_done

POLL = 0.05


@cache
def _server() -> Any:
    """The context whose fork server has imported everything; it lives as long as this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    return context


def prepare() -> None:
    """Start the fork server without waiting for its imports: they use a core of their own meanwhile."""
    from multiprocessing import forkserver

    _server()
    forkserver.ensure_running()


def torchrun(processes: int, script: Path | str, *args: str, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    """``tests.launch.torchrun`` without the import; the first rank that fails ends the others."""
    with start(processes, script, *args) as ranks:
        return ranks.wait(timeout)


def python(script: Path | str, *args: str, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    """``tests.launch.python`` without the import."""
    with _started([environment()], [str(script), *args]) as jobs:
        return jobs.wait(timeout)


@contextlib.contextmanager
def start(processes: int, script: Path | str, *args: str) -> Iterator[Ranks]:
    """Ranks at work; those that are left at the end are killed."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
    common |= {"LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "warm"}
    ranks = [{**environment(), **common, "RANK": str(r), "LOCAL_RANK": str(r)} for r in range(processes)]
    with _started(ranks, [str(script), *args]) as jobs:
        yield jobs


def asked_to_end(processes: int, script: Path | str, config: Path, run: Path, steps: int, *overrides: str) -> None:
    """Start the recipe and send SIGTERM to its ranks when ``steps`` steps are logged; they must save and end well."""
    with start(processes, script, "--config", str(config), f"run_dir={run}", *overrides) as ranks:
        deadline = time.monotonic() + 300
        while steps_done(run) < steps:
            assert ranks.running(), ranks.text()[-4000:]
            assert time.monotonic() < deadline, "no progress in five minutes"
            time.sleep(0.005)
        ranks.kill(signal.SIGTERM)
        done = ranks.wait(120)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "SIGTERM after step" in done.stdout


class Ranks:
    """Forked processes with the same command; each writes a log of its own."""

    def __init__(self, environments: Sequence[dict[str, str]], command: list[str], folder: Path) -> None:
        self.command = command
        self.logs = [folder / f"{i}.log" for i in range(len(environments))]
        self.jobs = [
            _server().Process(target=_body, args=(env, str(ROOT), command, str(log)))
            for env, log in zip(environments, self.logs, strict=True)
        ]
        for job in self.jobs:
            job.start()

    def running(self) -> bool:
        """Whether none has failed and one is still at work."""
        return any(job.exitcode is None for job in self.jobs) and not any(job.exitcode for job in self.jobs)

    def text(self) -> str:
        """What all have said so far."""
        return "".join(p.read_text(errors="replace") for p in self.logs if p.exists())

    def kill(self, number: int = signal.SIGKILL) -> None:
        """A signal to those that are there."""
        for job in self.jobs:
            if job.exitcode is None:
                os.kill(job.pid, number)

    def wait(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Exit code (the first that is not 0) and output."""
        deadline = time.monotonic() + timeout
        try:
            while self.running():
                if time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired(self.command, timeout, self.text())
                time.sleep(POLL)
            code = next((job.exitcode for job in self.jobs if job.exitcode), 0)
        finally:
            self.end()
        return subprocess.CompletedProcess(self.command, code, self.text())

    def end(self) -> None:
        """None is left."""
        self.kill()
        for job in self.jobs:
            job.join()


@contextlib.contextmanager
def _started(environments: Sequence[dict[str, str]], command: list[str]) -> Iterator[Ranks]:
    with tempfile.TemporaryDirectory() as folder:
        ranks = Ranks(environments, command, Path(folder))
        try:
            yield ranks
        finally:
            ranks.end()


class Forked:
    """A tool forked from the server, handled like a ``subprocess.Popen`` whose output goes to a file."""

    def __init__(self, script: Path | str, *args: str, log: Path, folder: Path = ROOT) -> None:
        self.log = log
        command = [str(script), *args]
        self._job = _server().Process(target=_body, args=(environment(), str(folder), command, str(log)))
        self._job.start()
        self.pid: int = self._job.pid

    @property
    def returncode(self) -> int | None:
        """As Popen has it; negative: the signal that ended it."""
        code: int | None = self._job.exitcode
        return code

    def poll(self) -> int | None:
        """None while it is at work."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To the tool alone."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; it is killed when the time is up."""
        self._job.join(timeout)
        if self.returncode is None:
            self.send_signal(signal.SIGKILL)
            self._job.join()
            raise subprocess.TimeoutExpired("forked tool", timeout or 0, self.log.read_text(errors="replace"))
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Standard output and error together, and nothing."""
        self.wait(timeout)
        return self.log.read_text(errors="replace"), ""


def _body(env: dict[str, str], folder: str, command: list[str], log: str) -> None:
    """In the forked process, as the study runs its stages, with a rank's environment."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    _fork_the_manager()
    run_tool(command, log, threads=1)


def _fork_the_manager() -> None:
    """Megatron collects what was written for a checkpoint in a manager's process, which imports torch: 4 CPU seconds.

    A forked one has it already. Processes that real launchers start in the tests have Megatron's own.
    """
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    from sdrrl_nemo.compat import checkpoint_queue

    def queue() -> Any:
        if filesystem_async._results_queue is None:
            manager = SyncManager(ctx=multiprocessing.get_context("fork"))
            manager.start(_end_with, (os.getpid(),))
            filesystem_async._results_queue = manager.Queue()
        return filesystem_async._results_queue

    filesystem_async._get_write_results_queue = checkpoint_queue.results_queue = queue


def _end_with(parent: int) -> None:
    """In the manager's process: it does not outlive a rank that is killed, nor act on the rank's signals."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=watch, daemon=True).start()


class _Requests(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class _OneRank(socketserver.StreamRequestHandler):
    """A stand-in (tests/warm_rank.py) asks for a process and hears its id, then its exit code."""

    def handle(self) -> None:
        wish = json.loads(self.rfile.readline())
        job = _server().Process(target=_body, args=(wish["env"], wish["folder"], wish["command"], wish["log"]))
        job.start()
        self.wfile.write(f"{job.pid}\n".encode())
        ready, _, _ = select.select([self.connection, job.sentinel], [], [])
        if job.sentinel not in ready:  # the stand-in was killed: so is what it stands for
            os.kill(job.pid, signal.SIGKILL)
        job.join()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(f"{job.exitcode}\n".encode())


@contextlib.contextmanager
def for_torchrun() -> Iterator[dict[str, str]]:
    """Environment variables with which any torchrun started meanwhile has its ranks forked here."""
    with tempfile.TemporaryDirectory() as folder:
        address, executable = Path(folder) / "socket", Path(folder) / "python"
        stand_in = Path(__file__).with_name("warm_rank.py")
        executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{stand_in}" "{address}" "$@"\n')
        executable.chmod(0o755)
        with _Requests(str(address), _OneRank) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield {"PYTHON_EXEC": str(executable)}
            finally:
                server.shutdown()
                thread.join()
