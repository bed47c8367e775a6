"""Runs the stages of a plan, some side by side, each in a process of its own; what is done is not done again.

Every stage is one of this repository's tools, run as from the command line (``runpy``) in a process of its own; its
output goes to a log file. Training and export are forked from a server that has imported NeMo and Megatron
(multiprocessing's ``forkserver``); the others need neither and start fresh, without what adapts torch to a machine
without GPU.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.common.provenance import script_path
from sdrrl_nemo.study.plan import SECONDS, Markers, Stage

PRELOAD = "sdrrl_nemo.study.preload"
PRELOADED = ("train", "export")
"""Kinds of stages that are forked from the server."""
POLL = 0.5


def run_tool(script: Sequence[str], log: str, threads: int) -> None:
    """Body of a stage's process: the tool ``script[0]`` of this repository with its arguments, output to ``log``."""
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    with open(log, "ab", buffering=0) as f:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:  # loaded by the fork server, before the line above
        import torch

        torch.set_num_threads(threads)
    sys.argv = list(script)
    runpy.run_path(str(script_path(script[0])), run_name="__main__")


def _end_with_the_study() -> None:
    """When the study is killed, its stages end too: none goes on beside the next study's."""
    study = multiprocessing.parent_process()
    if study is not None:
        study.join()
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Running:
    """A stage at work."""

    stage: Stage
    process: Any
    started: float = field(default_factory=time.perf_counter)


class Executor:
    """``parallel`` stages at a time with ``threads`` each; one that must be alone gets the threads of all."""

    def __init__(self, work_dir: str | Path, parallel: int, threads: int) -> None:
        self.work_dir, self.parallel, self.threads = Path(work_dir), parallel, threads
        self.markers = Markers(work_dir)
        self._fork: Any = multiprocessing.get_context("forkserver")
        self._fork.set_forkserver_preload([PRELOAD])
        self._fresh: Any = multiprocessing.get_context("spawn")
        self._running: list[Running] = []
        self._times: dict[str, list[float]] = {}

    def run(self, stages: Sequence[Stage]) -> int:
        """Finish all ``stages`` (each after those it needs); returns how many were left to do.

        The first stage that fails ends the run once its neighbours are done: SdrrlError names it and its log.
        """
        waiting = [s for s in stages if not self.markers.done(s)]
        for stage in stages:
            if (seconds := self.markers.seconds(stage.name)) is not None:
                self._times.setdefault(stage.kind, []).append(seconds)
        known = {s.name for s in stages}
        for stage in stages:
            missing = [n for n in stage.needs if n not in known and not self.markers.path(n).is_file()]
            if missing:
                raise SdrrlError(f"{stage.name} needs {missing[0]}, which is neither done nor among what is to be run")
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            with progress(None, "study", total=1, unit="s", bar_format=BAR) as bar:
                self._loop(waiting.copy(), bar)
        finally:
            self._stop()
            signal.signal(signal.SIGTERM, before)
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
                worth = self._estimate(job.stage.kind)
                bar.total = max(bar.total, bar.n + worth)
                bar.update(worth)
        if failed is not None:
            raise failed

    def _next(self, waiting: Sequence[Stage]) -> Stage | None:
        """The first stage that may start now."""
        if len(self._running) >= self.parallel or any(j.stage.alone for j in self._running):
            return None
        for stage in waiting:
            if all(self.markers.path(n).is_file() for n in stage.needs) and not (stage.alone and self._running):
                return stage
            if stage.alone:
                return None  # it is next in line; starting others would keep it waiting
        return None

    def _start(self, stage: Stage) -> None:
        log = self.log(stage)
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = self.threads * (self.parallel if stage.alone else 1)
        context = self._fork if stage.kind in PRELOADED else self._fresh
        process = context.Process(target=run_tool, args=(stage.script, str(log.resolve()), threads), name=stage.name)
        process.start()
        self._running.append(Running(stage, process))

    def _finish(self, job: Running) -> None:
        code = job.process.exitcode
        job.process.join()
        if code != 0:
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise SdrrlError(f"{job.stage.name} failed ({how}): {last_line(self.log(job.stage))}; all of its output "
                             f"is in {self.log(job.stage)}")  # fmt: skip
        seconds = time.perf_counter() - job.started
        self.markers.mark(job.stage, seconds)
        self._times.setdefault(job.stage.kind, []).append(seconds)

    def log(self, stage: Stage) -> Path:
        """Where the output of a stage goes."""
        return self.work_dir / "logs" / f"{stage.name.replace('/', '-')}.log"

    def _estimate(self, kind: str) -> float:
        """Seconds of a stage of one kind: the mean of those that were timed."""
        times = self._times.get(kind, [])
        return math.fsum(times) / len(times) if times else SECONDS[kind]

    def _show(self, bar: Any, waiting: Sequence[Stage], total: int) -> None:
        """Work that is left, by the times that were measured so far; tqdm makes the ETA of it."""
        left = [*(j.stage for j in self._running), *waiting]
        bar.total = bar.n + sum(self._estimate(s.kind) for s in left)
        names = ", ".join(j.stage.name for j in self._running)
        bar.set_postfix_str(f"{total - len(left)}/{total} stages; {names}", refresh=False)
        bar.update(0)

    def _stop(self) -> None:
        """End what still runs (after an interruption); unfinished stages continue at the next start."""
        for job in self._running:
            job.process.terminate()
        for job in self._running:
            job.process.join(10)
            if job.process.exitcode is None:
                job.process.kill()
                job.process.join()
        self._running.clear()


BAR = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}] {postfix}"


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    if not path.is_file():
        return "no output"
    lines = [x.strip() for x in path.read_text(encoding="utf-8", errors="replace").splitlines() if x.strip()]
    return lines[-1] if lines else "no output"
