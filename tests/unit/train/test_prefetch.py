"""Micro-batches made ahead: the same ones, nothing lost, nothing left behind, and what a step waited for them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.train import run_dir
from sdrrl_nemo.train.config import RunConfig, check
from sdrrl_nemo.train.loading import prefetch
from sdrrl_nemo.train.loading.prefetch import Loader, Waiting, ahead


class Counted:
    """0, 1, 2, ... without an end; ``made`` is how many were asked for, ``by`` which threads asked."""

    def __init__(self, error_at: int = -1, error: BaseException | None = None) -> None:
        self.made, self.error_at, self.error = 0, error_at, error
        self.by: set[str] = set()

    def __iter__(self) -> Iterator[int]:
        for i in itertools.count():
            self.by.add(threading.current_thread().name)
            if i == self.error_at and self.error is not None:
                raise self.error
            self.made += 1
            yield i


def makers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "micro-batches"]


def until(true: Any) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_same_items_in_order_and_no_more_ahead_than_asked_for(depth: int) -> None:
    source = Counted()
    items = ahead(source, depth)
    assert [next(items) for _ in range(20)] == list(range(20))
    # those in the queue, and the one that the thread holds until there is room for it
    until(lambda: source.made == 20 + (depth + 1 if depth else 0))
    time.sleep(0.02)
    assert source.made == 20 + (depth + 1 if depth else 0)
    assert source.by == {"micro-batches" if depth else threading.current_thread().name}


@pytest.mark.parametrize("how", ["close", "forget"])
def test_the_thread_ends_with_its_reader(how: str) -> None:
    items = ahead(Counted(), 1)
    next(items)
    assert len(makers()) == 1
    if how == "close":
        items.close()  # type: ignore[attr-defined]
    del items
    until(lambda: not makers())


def test_items_come_to_an_end() -> None:
    assert list(ahead(range(7), 2)) == list(range(7))
    until(lambda: not makers())


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("error", [SdrrlError("train.bin: cannot be read"), MemoryError(), KeyboardInterrupt()])
def test_an_error_comes_in_its_place_as_it_was_raised(depth: int, error: BaseException) -> None:
    items = ahead(Counted(error_at=5, error=error), depth)
    assert [next(items) for _ in range(5)] == list(range(5))
    with pytest.raises(type(error)) as raised:
        next(items)
    assert raised.value is error


def test_sigterm_reaches_the_main_thread_while_it_waits() -> None:
    """The handler runs, and the wait goes on: training ends after the step, not in the middle of it."""
    told = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append(threading.current_thread().name))

    def slow() -> Iterator[int]:
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: told)  # else the signal had waited for the item
        yield 1

    try:
        assert next(ahead(slow(), 1)) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [threading.main_thread().name]


class Clock:
    """Goes on by a second with each item that is made."""

    def __init__(self) -> None:
        self.time = 0.0

    def perf_counter(self) -> float:
        return self.time

    def items(self) -> Iterator[int]:
        for i in range(3):
            self.time += 1.0
            yield i


@pytest.mark.parametrize("depth", [0, 3])
def test_waiting_counts_what_was_not_ready_and_nothing_else(monkeypatch: pytest.MonkeyPatch, depth: int) -> None:
    clock, waiting = Clock(), Waiting()
    monkeypatch.setattr(prefetch, "time", clock)
    items = waiting.measured(ahead(clock.items(), depth))
    next(items)
    waited = waiting.take()
    assert (waited >= 1.0) if depth else (waited == 1.0)
    if depth:
        until(lambda: clock.time == 3.0)  # a step takes its time, and all the others are made in it
    assert list(items) == [1, 2]
    assert waiting.take() == (0.0 if depth else 2.0)
    assert waiting.take() == 0.0


def test_page_locked_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread first chooses the GPU of its rank: else it would take memory of the machine's first one."""
    done: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda d: done.append((d, threading.current_thread().name)))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: done.append("pinned") or t)
    batches = [{"tokens": torch.arange(3), "weights": torch.ones(3)}]
    (batch,) = Loader(batches, 1, Waiting())
    assert batch["tokens"].tolist() == [0, 1, 2] and batch["weights"].tolist() == [1, 1, 1]
    assert done == [(3, "micro-batches"), "pinned", "pinned"]


def test_a_torch_loader_hands_the_batches_through() -> None:
    batches = [{"tokens": torch.arange(i, i + 3)} for i in range(5)]
    loader = DataLoader(Loader(batches, 2, Waiting()), batch_size=None, num_workers=0)
    for found, made in zip(loader, batches, strict=True):
        assert found["tokens"] is made["tokens"]


def test_a_run_that_waited_says_so_at_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RunConfig(run_dir=str(tmp_path))
    write_json(tmp_path / "identity.json", {})

    def ends(*waits: float) -> str:
        rows = [{"step": i, "seconds": 2.0, "data_wait_s": wait} for i, wait in enumerate(waits, 1)]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [{"step": 0}, *rows]))
        run_dir.finish(config, 4, None, interrupted=False)
        return capsys.readouterr().out

    assert "waited" not in ends(0.01, 0.03)
    assert read_json(tmp_path / "finished.json")["data_wait_s"] == pytest.approx(0.02)
    assert "a step waited 0.5 s (25.0% of its time) for its micro-batches; raise data.prefetch" in ends(0.25, 0.75)


def test_prefetch_is_not_negative() -> None:
    config = RunConfig(run_dir="")
    config.data.prefetch = -1
    with pytest.raises(SdrrlError, match=r"^data\.prefetch: must be 0"):
        check(config, 1)
