"""The process that collects what the writers of a checkpoint report survives a launcher's signal to the whole group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.launch import environment

RANK = """
import os, signal, sys, time
from sdrrl_nemo.compat.start import prepare
prepare()
from megatron.core.dist_checkpointing.strategies import filesystem_async as writer
from sdrrl_nemo.compat.checkpoint_queue import shield

def answers(queue):
    os.killpg(0, signal.SIGTERM)
    time.sleep(0.5)
    try:
        queue.put("written")
        return queue.get()
    except OSError as e:
        return type(e).__name__

signal.signal(signal.SIGTERM, lambda *_: None)
print("megatron's own:", answers(writer._get_write_results_queue()), flush=True)
writer._results_queue = None
shield()
shield()
queue = writer._get_write_results_queue()
assert writer._get_write_results_queue() is queue
print("shielded:", answers(queue), flush=True)
print("process", queue._manager._process.pid, flush=True)
time.sleep(60)
"""


def test_a_signal_to_the_group_and_a_rank_that_is_killed() -> None:
    pipe = subprocess.PIPE  # a process group of its own, as torchrun gives each rank
    with subprocess.Popen(
        [sys.executable, "-c", RANK],
        env=environment(),
        stdout=pipe,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as rank:
        assert rank.stdout
        said: dict[str, str] = {}
        for line in rank.stdout:
            key, _, value = line.strip().rpartition(" ")
            said[key] = value
            if key == "process":
                break
        assert said["shielded:"] == "written", said
        assert said["megatron's own:"] != "written", "Megatron's own survives too: the patch is not needed any more"
        assert is_there(int(said["process"]))
        os.kill(rank.pid, signal.SIGKILL)
        rank.wait()
        deadline = time.monotonic() + 20
        while is_there(int(said["process"])):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def is_there(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False
