"""Micro-batches made ahead of their use by a thread, and the seconds that training waited for them all the same.

A thread, not a process: a micro-batch takes a fraction of a millisecond, numpy's large copies hold no lock, signals
still go to the main thread, and an error needs no way back between processes. Where a run goes on after an interruption
follows from the number of its last step, never from how far the thread has come.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

T = TypeVar("T")
Batch = dict[str, Tensor]


class Waiting:
    """Seconds that a step has waited for its micro-batches."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def take(self) -> float:
        """Seconds since the last call."""
        taken, self.seconds = self.seconds, 0.0
        return taken

    def measured(self, items: Iterable[T]) -> Iterator[T]:
        """``items``, with the time that each of them took to come added to ``seconds``."""
        source = iter(items)
        while True:
            began = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - began
            yield item


class _End:
    """Comes behind the last item; ``error``: what ended them, if anything did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """``items``, up to ``depth`` of them made by a thread before they are asked for; 0: each when it is asked for.

    What making an item raises is raised here, in its place: the same exception, after all items before it. The thread
    ends when the iterator is closed or forgotten.
    """
    if depth == 0:
        yield from items
        return
    ready: queue.Queue[T | _End] = queue.Queue(depth)
    stopped = threading.Event()
    device = torch.cuda.current_device() if torch.cuda.is_available() else None
    maker = threading.Thread(target=_make, args=(items, ready, stopped, device), name="micro-batches", daemon=True)
    maker.start()
    try:
        while True:
            item = ready.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return
    finally:
        stopped.set()
        while not ready.empty():  # so that a thread that waits for room finds some, and then looks at `stopped`
            ready.get_nowait()


def _make(
    items: Iterable[T], ready: queue.Queue[T | _End], stopped: threading.Event, device: int | torch.device | None
) -> None:
    """The thread. It holds no reference to its reader, whose end it could not see otherwise."""
    try:
        if device is not None:
            torch.cuda.set_device(device)  # else a thread's first use of CUDA takes memory of the first GPU
        for item in items:
            ready.put(item)
            if stopped.is_set():
                return
        ready.put(_End(None))
    except BaseException as e:  # nothing that happens here may be lost: the reader raises it
        ready.put(_End(e))


def pinned(batches: Iterable[Batch]) -> Iterator[Batch]:
    """``batches`` in page-locked memory, from which a copy to the GPU runs beside the computation."""
    for batch in batches:
        yield {k: v.pin_memory() for k, v in batch.items()}


class Loader(IterableDataset[Batch]):
    """``batches``, made ``depth`` ahead and page-locked where there is a GPU; ``waiting`` knows what a step waited."""

    def __init__(self, batches: Iterable[Batch], depth: int, waiting: Waiting) -> None:
        self.batches, self.depth, self.waiting = batches, depth, waiting

    def __iter__(self) -> Iterator[Batch]:
        source = pinned(self.batches) if torch.cuda.is_available() else self.batches
        return self.waiting.measured(ahead(source, self.depth))
