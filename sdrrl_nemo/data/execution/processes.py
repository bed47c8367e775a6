"""Workers as processes of this machine, each on a pipe of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from sdrrl_nemo.common.quiet import quiet_third_parties
from sdrrl_nemo.data.execution.config import Resources
from sdrrl_nemo.data.execution.executor import Pool
from sdrrl_nemo.data.execution.worker import Reply, Worker


@dataclass(eq=False)
class _Handle:
    process: BaseProcess
    pipe: Connection
    calls: int = 0
    """Calls without a reply yet."""


class ProcessPool(Pool[_Handle]):
    """Started afresh (spawn): a forked copy of a process that runs OpenMP or CUDA does not work."""

    def __init__(self, resources: Resources, engines_kept: int) -> None:
        self.threads = max(1, int(resources.cpus))
        self.engines_kept = engines_kept
        self._context = multiprocessing.get_context("spawn")

    def start(self) -> _Handle:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self.threads, self.engines_kept), daemon=True)
        process.start()
        theirs.close()  # else the pipe would stay open when the worker dies
        return _Handle(process, ours)

    def call(self, worker: _Handle, method: str, *arguments: Any) -> None:
        worker.calls += 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: wait() says so
            worker.pipe.send((method, arguments))

    def wait(self, workers: list[_Handle]) -> list[tuple[_Handle, Reply | str]]:
        found: list[tuple[_Handle, Reply | str]] = []
        while not found:
            ready = set(wait([w.pipe for w in workers]))
            replies = [(w, self._reply(w)) for w in workers if w.pipe in ready]
            found = [(w, reply) for w, reply in replies if w.calls == 0 or isinstance(reply, str)]
        return found

    def _reply(self, worker: _Handle) -> Reply | str:
        try:
            reply: Reply = worker.pipe.recv()
            worker.calls -= 1
            return reply
        except (EOFError, OSError):
            worker.process.join(10)
            code = worker.process.exitcode
            return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"

    def stop(self, worker: _Handle) -> None:
        worker.process.kill()
        worker.process.join(10)
        worker.pipe.close()


def _serve(pipe: Connection, threads: int, engines_kept: int) -> None:
    """Body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver ends its workers
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    quiet_third_parties()
    threading.Thread(target=_end_with_driver, daemon=True).start()
    worker = Worker(engines_kept)
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(worker, method)(*arguments))


def _end_with_driver() -> None:
    """A driver that is killed cannot end its workers: they see it and go, or they would hold their memory for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
