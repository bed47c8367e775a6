"""One process that trains, exports and measures run after run, in place of a process a stage.

NeMo and Megatron are imported once, and a GPU is opened once. The process stays apart from the study's own, so that it
can be ended with everything it holds, and a crash of it is an error of one stage.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from sdrrl_nemo.common.progress import close_bars
from sdrrl_nemo.common.provenance import script_path

ENDS_WITHIN_S = 5.0
"""How long the process may take to end by itself once no more stages come."""
CRASHED = 1
"""Exit code of a stage whose process ended without an answer, or with an exception that is no SdrrlError."""


class OneProcess:
    """The process; it starts with its first stage. ``context``: how (``spawn`` where it is to open a GPU)."""

    def __init__(self, context: Any, preload: str) -> None:
        self._context, self._preload = context, preload
        self._process: Any = None
        self._connection: Connection | None = None

    def start(self, script: Sequence[str], log: str, threads: int) -> Errand:
        """Hand over a stage: the tool ``script[0]`` of this repository with its arguments, output to ``log``. The one
        before must have ended."""
        if self._connection is None:
            self._connection, theirs = self._context.Pipe()
            self._process = self._context.Process(target=serve, args=(theirs, self._preload), name="study")
            self._process.start()
            theirs.close()
        self._connection.send((list(script), log, threads))
        return Errand(self._process, self._connection)

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._connection is not None:
            self._connection.close()
            self._process.join(ENDS_WITHIN_S)
            self._process.kill()
            self._process.join()
            self._connection = None


class Errand:
    """A stage in the one process, handled like a process of its own (``multiprocessing.Process``)."""

    def __init__(self, process: Any, connection: Connection) -> None:
        self._process, self._connection = process, connection
        self._code: int | None = None

    @property
    def exitcode(self) -> int | None:
        """None while it is at work; negative: the signal that ended the process."""
        if self._code is None:
            try:
                if self._connection.poll():
                    self._code = int(self._connection.recv())
            except (EOFError, OSError):  # it ended without an answer
                self._process.join()
                self._code = self._process.exitcode or CRASHED
        return self._code

    def join(self, timeout: float | None = None) -> None:
        """Wait for the stage's end, or for the process's."""
        if self._code is None:
            wait([self._connection, self._process.sentinel], timeout)

    def terminate(self) -> None:
        """Ask for the end: a training writes a checkpoint first."""
        self._process.terminate()

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()


def serve(requests: Connection, preload: str) -> None:
    """Body of the process: stages in the order in which they come, until nobody is there to send one."""
    threading.Thread(target=end_with_the_study, daemon=True).start()
    hear_the_study()
    __import__(preload)
    from sdrrl_nemo.compat.process.between_runs import as_in_a_new_process

    while True:
        try:
            script, log, threads = requests.recv()
        except (EOFError, OSError):
            return
        with as_in_a_new_process():
            code = run_here(script, log, threads)
        requests.send(code)


def run_here(script: Sequence[str], log: str, threads: int) -> int:
    """Run a tool in this process with its output going to the end of ``log``; returns its exit code."""
    import torch

    with open(log, "ab", buffering=0) as f:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    sys.argv[:] = script
    code: Any = 0
    try:
        runpy.run_path(str(script_path(script[0])), run_name="__main__")
    except SystemExit as e:
        code = e.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:  # as an interpreter of its own would: the trace goes to the log
        traceback.print_exc()
        code = CRASHED
    close_bars()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else CRASHED if code else 0


def end_with_the_study() -> None:
    """When the study is killed, its processes end too: none goes on beside the next study's."""
    study = multiprocessing.parent_process()
    if study is not None:
        study.join()
        os.kill(os.getpid(), signal.SIGKILL)


def hear_the_study() -> None:
    """From here on this process, which started away from the terminal (execute.py), can be asked to end."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
