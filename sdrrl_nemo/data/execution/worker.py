"""The inside of a worker: it keeps its stage and its loaded engines from shard to shard."""

from __future__ import annotations

import io
import pickle
import traceback
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import Engine
from sdrrl_nemo.data.execution.isolation import Span
from sdrrl_nemo.data.execution.shard import Task, work_shard
from sdrrl_nemo.data.execution.stage import Row


@dataclass(frozen=True)
class Reply:
    """A worker's answer: facts of a finished shard, nothing (the task is loaded), or why the run must stop.

    ``user``: the sentence is for the user (an SdrrlError); else ``stop`` is the trace of a mistake in the code.
    """

    facts: dict[str, Any] | None = None
    stop: str | None = None
    user: bool = True


class _Packer(pickle.Pickler):
    """Engines go apart from their stage, as what they look like unloaded: two stages' equal engines are one."""

    def persistent_id(self, obj: Any) -> bytes | None:
        return pickle.dumps(obj) if isinstance(obj, Engine) else None


class _Unpacker(pickle.Unpickler):
    def __init__(self, data: bytes, engines: OrderedDict[bytes, Engine]) -> None:
        super().__init__(io.BytesIO(data))
        self.engines = engines
        self.used: set[bytes] = set()

    def persistent_load(self, pid: bytes) -> Engine:
        self.used.add(pid)
        if pid not in self.engines:
            self.engines[pid] = pickle.loads(pid)
        self.engines.move_to_end(pid)
        return self.engines[pid]


def pack(task: Task) -> bytes:
    """The task for workers; SdrrlError when its stage cannot be carried to another process."""
    buffer = io.BytesIO()
    try:
        _Packer(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(task)
    except (pickle.PicklingError, AttributeError, TypeError) as e:
        raise SdrrlError(
            f"stage {task.stage.name} cannot be carried to a worker process ({e}); an engine must hold options only "
            "and load on first use"
        ) from e
    return buffer.getvalue()


class Worker:
    """Loads a task once, then works on its shards. At most ``engines_kept`` engines of earlier tasks stay loaded."""

    def __init__(self, engines_kept: int) -> None:
        self.engines_kept = engines_kept
        self.engines: OrderedDict[bytes, Engine] = OrderedDict()
        self.task: Task | None = None

    def load(self, packed: bytes) -> Reply:
        """Take up another task."""
        self.task = None
        unpacker = _Unpacker(packed, self.engines)
        try:
            self.task = unpacker.load()
        except SdrrlError as e:
            return Reply(stop=str(e))
        except Exception:
            return Reply(stop=traceback.format_exc(), user=False)
        while len(self.engines) > max(self.engines_kept, len(unpacker.used)):
            self.engines.popitem(last=False)
        return Reply()

    def work(self, number: int, rows: list[Row], killers: frozenset[Span] | None) -> Reply:
        """Finish one shard: its files are written here. ``killers``: of a shard whose workers died."""
        assert self.task is not None
        try:
            return Reply(facts=work_shard(self.task, number, rows, killers))
        except SdrrlError as e:
            return Reply(stop=str(e))
        except Exception:
            return Reply(stop=traceback.format_exc(), user=False)
