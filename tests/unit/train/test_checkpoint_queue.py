"""The process that collects what the writers of a checkpoint report survives a launcher's signal to the whole group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch import environment

RANK = """
import os, signal, sys, time
from sdrrl_nemo.compat.start import prepare
prepare()
from megatron.core.dist_checkpointing.strategies import filesystem_async as writer
from sdrrl_nemo.compat.checkpoint_queue import shield
signal.signal(signal.SIGTERM, lambda *_: None)
if sys.argv[1] == "shielded":
    shield()
    shield()
queue = writer._get_write_results_queue()
assert writer._get_write_results_queue() is queue
print("manager", queue._manager._process.pid, flush=True)
if sys.argv[2] == "stay":
    time.sleep(60)
os.killpg(0, signal.SIGTERM)
time.sleep(0.5)
queue.put("written")
print(queue.get(), flush=True)
"""


def rank(*args: str) -> subprocess.Popen[str]:
    """A process group of its own, as torchrun gives each rank."""
    command = [sys.executable, "-c", RANK, *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment(), stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


@pytest.mark.parametrize("kind", ["shielded", "megatron's own"])
def test_a_signal_to_the_group(kind: str) -> None:
    said, _ = (process := rank(kind, "end")).communicate(timeout=120)
    assert (process.returncode == 0 and said.endswith("written\n")) is (kind == "shielded"), said


def test_it_ends_with_a_rank_that_is_killed() -> None:
    process = rank("shielded", "stay")
    assert process.stdout
    manager = next(int(line.split()[1]) for line in process.stdout if line.startswith("manager "))
    assert Path(f"/proc/{manager}").exists()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{manager}/cmdline").exists() and Path(f"/proc/{manager}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
