"""Runs the stages of a plan, some side by side, each in a process of its own; what is done is not done again.

Every stage is one of this repository's tools, run as from the command line (``runpy``) in a process of its own; its
output goes to a log file. Training and export are forked from a server that has imported NeMo and Megatron
(multiprocessing's ``forkserver``); the others need neither and start fresh, without what adapts torch to a machine
without GPU. Or one process takes all trainings, exports and measurements one after another (one_process.py).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.common.provenance import script_path
from sdrrl_nemo.study.one_process import OneProcess, end_with_the_study, hear_the_study
from sdrrl_nemo.study.plan import Markers, Stage, Times

PRELOAD = "sdrrl_nemo.study.preload"
PRELOADED = ("choose_lr", "train", "export")
"""Kinds of stages that are forked from the server."""
MEASURING = "measure"
"""Kind that has a process of its own in ``one process`` where two stages may run side by side."""
POLL = 0.1
STOPS_WITHIN_S = 300.0
"""How long a stage may take to end that was asked to: a training ends its step and writes a checkpoint."""
STOPPING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that stop a study as Ctrl-C does: of a launcher, of a terminal that is closed."""


def run_tool(script: Sequence[str], log: str, threads: int) -> None:
    """Body of a stage's process: the tool ``script[0]`` of this repository with its arguments, output to ``log``."""
    threading.Thread(target=end_with_the_study, daemon=True).start()
    hear_the_study()
    with open(log, "ab", buffering=0) as f:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:  # loaded by the fork server, before the line above
        import torch

        torch.set_num_threads(threads)
    sys.argv = list(script)
    runpy.run_path(str(script_path(script[0])), run_name="__main__")


@dataclass
class Running:
    """A stage at work."""

    stage: Stage
    process: Any
    started: float = field(default_factory=time.perf_counter)


class Executor:
    """``parallel`` stages at a time with ``threads`` each; one that must be alone gets the threads of all.

    ``one_process``: how the process is started (multiprocessing's name) that takes all stages but the preprocessing,
    one after another; with ``parallel`` of 2 or more a second one measures what the first has trained. Empty: a
    process a stage.
    """

    def __init__(self, work_dir: str | Path, parallel: int, threads: int, one_process: str = "") -> None:
        self.work_dir, self.parallel, self.threads = Path(work_dir), parallel, threads
        self.markers = Markers(work_dir)
        self._fork: Any = multiprocessing.get_context("forkserver")
        self._fork.set_forkserver_preload([PRELOAD])
        self._fresh: Any = multiprocessing.get_context("spawn")
        self._lanes: dict[bool, OneProcess] = {}
        if one_process:
            how = self._fork if one_process == "forkserver" else multiprocessing.get_context(one_process)
            self._lanes = dict.fromkeys((False, True), OneProcess(how, PRELOAD))
            if parallel > 1:
                self._lanes[True] = OneProcess(how, PRELOAD)
        self._running: list[Running] = []
        self.times = Times()

    def run(self, stages: Sequence[Stage]) -> int:
        """Finish all ``stages`` (each after those it needs); returns how many were left to do.

        The first stage that fails ends the run once its neighbours are done: SdrrlError names it and its log.
        """
        waiting = [s for s in stages if not self.markers.done(s)]
        for stage in stages:
            if (seconds := self.markers.seconds(stage.name)) is not None:
                self.times.add(stage, seconds)
        known = {s.name for s in stages}
        for stage in stages:
            missing = [n for n in stage.needs if n not in known and not self.markers.path(n).is_file()]
            if missing:
                raise SdrrlError(f"{stage.name} needs {missing[0]}, which is neither done nor among what is to be run")
        before = {n: signal.getsignal(n) for n in STOPPING}
        for number in (n for n in STOPPING if before[n] != signal.SIG_IGN):  # nohup has SIGHUP ignored
            signal.signal(number, _interrupt)
        try:
            with progress(None, "study", total=1, unit="s", bar_format=BAR) as bar:
                self._loop(waiting.copy(), bar)
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        return len(waiting)

    def _loop(self, waiting: list[Stage], bar: Any) -> None:
        total = len(waiting)
        failed: SdrrlError | None = None
        while waiting or self._running:
            if failed is None:
                while (stage := self._next(waiting)) is not None:
                    waiting.remove(stage)
                    self._start(stage)
            elif not self._running:
                break
            self._show(bar, waiting, total)
            time.sleep(POLL)
            for job in [j for j in self._running if j.process.exitcode is not None]:
                self._running.remove(job)
                try:
                    self._finish(job)
                except SdrrlError as e:
                    failed = failed or e
                    continue
                worth = self.times.estimate(job.stage)
                bar.total = max(bar.total, bar.n + worth)
                bar.update(worth)
        if failed is not None:
            raise failed

    def _next(self, waiting: Sequence[Stage]) -> Stage | None:
        """The first stage that may start now."""
        if len(self._running) >= self.parallel or any(j.stage.alone for j in self._running):
            return None
        busy = [self._lane(j.stage) for j in self._running]
        for stage in waiting:
            ready = all(self.markers.path(n).is_file() for n in stage.needs)
            free = self._lane(stage) is None or self._lane(stage) not in busy
            if ready and free and not (stage.alone and self._running):
                return stage
            if stage.alone:
                return None  # it is next in line; starting others would keep it waiting
        return None

    def _start(self, stage: Stage) -> None:
        log = self.log(stage)
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = self.threads * (self.parallel if stage.alone else 1)
        call = (stage.script, str(log.resolve()), threads)
        with _away_from_the_terminal():
            if lane := self._lane(stage):
                process = lane.start(*call)
            else:
                context = self._fork if stage.kind in PRELOADED else self._fresh
                process = context.Process(target=run_tool, args=call, name=stage.name)
                process.start()
            self._running.append(Running(stage, process))

    def _lane(self, stage: Stage) -> OneProcess | None:
        """The process that takes the stages of this kind; None: each has its own."""
        return None if stage.alone else self._lanes.get(stage.kind == MEASURING)

    def _finish(self, job: Running) -> None:
        code = job.process.exitcode
        job.process.join()
        if code != 0:
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise SdrrlError(f"{job.stage.name} failed ({how}): {last_line(self.log(job.stage))}; all of its output "
                             f"is in {self.log(job.stage)}")  # fmt: skip
        if left := job.stage.steps_left():
            raise SdrrlError(f"{job.stage.name} was stopped {left} of {job.stage.steps} steps before its end; the same "
                             "command continues")  # fmt: skip
        seconds = time.perf_counter() - job.started
        self.markers.mark(job.stage, seconds)
        self.times.add(job.stage, seconds)

    def log(self, stage: Stage) -> Path:
        """Where the output of a stage goes."""
        return self.work_dir / "logs" / f"{stage.name.replace('/', '-')}.log"

    def _show(self, bar: Any, waiting: Sequence[Stage], total: int) -> None:
        """Work that is left, by the times that were measured so far; tqdm makes the ETA of it."""
        left = [*(j.stage for j in self._running), *waiting]
        bar.total = bar.n + sum(self.times.estimate(s) for s in left)
        names = ", ".join(j.stage.name for j in self._running)
        bar.set_postfix_str(f"{total - len(left)}/{total} stages; {names}", refresh=False)
        bar.update(0)

    def _stop(self) -> None:
        """End what still runs after an interruption: a training writes a checkpoint first. Interrupted once more, or
        after ``STOPS_WITHIN_S``, all are killed; unfinished stages continue at the next start."""
        if not self._running:
            return
        names = ", ".join(j.stage.name for j in self._running)
        end = time.monotonic() + STOPS_WITHIN_S
        try:
            print(f"study: stopping {names}; Ctrl-C again does not wait for it", file=sys.stderr)
            for job in self._running:
                job.process.terminate()
            for job in self._running:
                job.process.join(max(0.0, end - time.monotonic()))
        finally:
            for job in self._running:
                if job.process.exitcode is None:
                    job.process.kill()
                    job.process.join()
            self.close()
            self._running.clear()

    def close(self) -> None:
        """End the processes that wait for stages."""
        for lane in self._lanes.values():
            lane.close()


BAR = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}] {postfix}"


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _away_from_the_terminal() -> Iterator[None]:
    """What starts inside does not hear the signals that reach all processes of a group (Ctrl-C, the end of a terminal,
    a launcher's SIGTERM): the study answers, and asks its stages to end. Its fork server must outlive them."""
    resource_tracker.ensure_running()  # which unblocks signals when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *STOPPING})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    if not path.is_file():
        return "no output"
    lines = [x.strip() for x in path.read_text(encoding="utf-8", errors="replace").splitlines() if x.strip()]
    return lines[-1] if lines else "no output"
