"""Maps a stage over shards: in this process, or over a pool of workers that may die."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.execution.config import ExecutionConfig, Resources, resources_of
from sdrrl_nemo.data.execution.isolation import Suspect, note_path
from sdrrl_nemo.data.execution.shard import Task, work_shard
from sdrrl_nemo.data.execution.stage import Row
from sdrrl_nemo.data.execution.worker import Reply, pack

Shard = tuple[int, list[Row]]
Finished = tuple[int, dict[str, Any]]
W = TypeVar("W")


class Executor(ABC):
    """Works on the shards of a task, a bounded number of them at once."""

    @abstractmethod
    def map(self, task: Task, shards: Iterator[Shard]) -> Iterator[Finished]:
        """(number, facts) of each shard, in any order, its files written."""

    @abstractmethod
    def close(self) -> None:
        """End the workers."""


class SerialExecutor(Executor):
    """One shard after the other in this process; engines are loaded once and shared by all stages."""

    def map(self, task: Task, shards: Iterator[Shard]) -> Iterator[Finished]:
        for number, rows in shards:
            yield number, work_shard(task, number, rows)

    def close(self) -> None:
        """Nothing to end."""


class Pool(ABC, Generic[W]):
    """Workers of equal resources, by handle. A worker does its calls in turn; only the last one's reply counts."""

    @abstractmethod
    def start(self) -> W:
        """Begin a worker; it may not be there yet when this returns."""

    @abstractmethod
    def call(self, worker: W, method: str, *arguments: Any) -> None:
        """Begin ``Worker.<method>(*arguments)``."""

    @abstractmethod
    def wait(self, workers: list[W]) -> list[tuple[W, Reply | str]]:
        """Block until the last call of at least one worker is over: its reply, or, as text, how the worker died."""

    @abstractmethod
    def stop(self, worker: W) -> None:
        """End a worker, whatever it is doing."""


class PoolExecutor(Executor):
    """Hands shards to whichever worker is free; a shard whose worker died goes to another one.

    Which worker does what changes nothing: a shard's files depend on its rows alone. The pool stays for the next stage
    when that asks for the same resources.
    """

    def __init__(self, config: ExecutionConfig, make_pool: Callable[[Resources], Pool[Any]]) -> None:
        self.config, self.make_pool = config, make_pool
        self._pool: Pool[Any] | None = None
        self._resources: Resources | None = None
        self._workers: list[Any] = []

    def map(self, task: Task, shards: Iterator[Shard]) -> Iterator[Finished]:
        first = next(shards, None)
        if first is None:
            return
        packed = pack(task)
        self._prepare(resources_of(self.config, task.stage.name))
        run = _Run(self._pool, self._workers, task, packed, self.config)
        whole = False
        try:
            yield from run.results(first, shards)
            whole = True
        finally:
            if not whole:
                self.close()  # shards are still being worked on for nobody

    def _prepare(self, resources: Resources) -> None:
        if resources != self._resources:
            self.close()
            self._pool, self._resources = self.make_pool(resources), resources
        assert self._pool is not None
        while len(self._workers) < resources.workers:
            self._workers.append(self._pool.start())

    def close(self) -> None:
        if self._pool is not None:
            for worker in self._workers:
                self._pool.stop(worker)
        self._pool, self._resources = None, None
        self._workers.clear()


class _Run:
    """One task over one pool."""

    def __init__(self, pool: Any, workers: list[Any], task: Task, packed: bytes, config: ExecutionConfig) -> None:
        self.pool, self.workers, self.task, self.packed, self.config = pool, workers, task, packed, config
        self.limit = max(config.max_in_flight or 2 * len(workers), 1)
        self.ready: deque[Shard] = deque()
        self.idle: list[Any] = []
        self.busy: dict[Any, Shard | None] = {}  # None: loading the task
        self.deaths: dict[int | None, int] = {}
        self.suspects: dict[int, Suspect] = {}

    def results(self, first: Shard, shards: Iterator[Shard]) -> Iterator[Finished]:
        for worker in self.workers:
            self._load(worker)
        self.ready.append(first)
        more = True
        while True:
            self._hand_out()
            while more and self._held() < self.limit:
                shard = next(shards, None)
                more = shard is not None
                if shard is not None:
                    self.ready.append(shard)
                    self._hand_out()
            if not more and self._held() == 0:
                return  # a worker that is still loading finds its next task waiting
            for worker, reply in self.pool.wait(list(self.busy)):
                finished = self._take(worker, reply)
                if finished is not None:
                    yield finished

    def _held(self) -> int:
        return len(self.ready) + sum(shard is not None for shard in self.busy.values())

    def _load(self, worker: Any) -> None:
        self.busy[worker] = None
        self.pool.call(worker, "load", self.packed)

    def _hand_out(self) -> None:
        while self.ready and self.idle:
            worker, shard = self.idle.pop(), self.ready.popleft()
            self.busy[worker] = shard
            suspect = self.suspects.get(shard[0])
            self.pool.call(worker, "work", *shard, None if suspect is None else suspect.killers())

    def _take(self, worker: Any, reply: Reply | str) -> Finished | None:
        shard = self.busy.pop(worker)
        if isinstance(reply, str):
            self._replace(worker, shard, reply)
            return None
        if reply.stop is not None:
            if reply.user:
                raise SdrrlError(reply.stop)
            raise RuntimeError(f"stage {self.task.stage.name} failed in a worker:\n{reply.stop}")
        self.idle.append(worker)
        if shard is None or reply.facts is None:
            self.deaths.pop(None, None)
            return None
        self.suspects.pop(shard[0], None)
        return shard[0], reply.facts

    def _replace(self, worker: Any, shard: Shard | None, how: str) -> None:
        """A new worker for one that died; its shard is next."""
        number = None if shard is None else shard[0]
        self.deaths[number] = self.deaths.get(number, 0) + 1
        if self.deaths[number] > self.config.retries:
            self._suspect(shard, how)
        if shard is not None:
            self.ready.appendleft(shard)
        self.pool.stop(worker)
        fresh = self.pool.start()
        self.workers[self.workers.index(worker)] = fresh
        self._load(fresh)

    def _suspect(self, shard: Shard | None, how: str) -> None:
        """A shard that kills every worker is searched for the row that does; where there is none, the run stops."""
        if shard is not None:
            number, rows = shard
            suspect = self.suspects.setdefault(number, Suspect(len(rows), self.config.retries))
            suspect.blame(note_path(self.task.directory, number))
            if not suspect.hopeless:
                return
        what = "loading" if shard is None else f"shard {shard[0]} (first row {shard[1][0].get('key', '?')})"
        times = self.deaths[None if shard is None else shard[0]]
        raise SdrrlError(
            f"stage {self.task.stage.name}: {what}: the worker died {times} times ({how}); look for too little memory "
            "or a crashing engine, then run the same command again: what is finished is kept"
        )
