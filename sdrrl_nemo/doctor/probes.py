"""Tries in processes of their own: an import that crashes, hangs or prints is a line of the report, nothing else.

``probe`` runs steps of ``sdrrl_nemo.doctor.trials`` one after another in one child, which writes a line of JSON before
and after each. A step that ends the child, or takes too long, is reported as failed; a new child does the rest.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any

from sdrrl_nemo.common.provenance import IMPORT_PATHS, IS_CHECKOUT

MARK = "sdrrl-doctor "
"""Begins the child's lines; whatever else it prints is some library's."""
LONGEST = 400
"""Characters of a message; some libraries print pages without a newline."""
TIMEOUT_S = 240.0
"""A step. Importing NeMo takes 20 seconds on two quiet cores, minutes from a cold network disk."""


@dataclass(frozen=True)
class Outcome:
    """What came of one step; ``facts`` is what it returned, ``error`` one line."""

    ok: bool
    error: str = ""
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


def probe(
    steps: Sequence[str], module: str = "sdrrl_nemo.doctor.trials", timeout: float = TIMEOUT_S
) -> dict[str, Outcome]:
    """Outcome of every step, in order."""
    found: dict[str, Outcome] = {}
    while left := [s for s in steps if s not in found]:
        found |= _child(left, module, timeout)
    return found


def probe_side_by_side(*series: Sequence[str]) -> dict[str, Outcome]:
    """Each series in a child of its own, all at once."""
    with ThreadPoolExecutor(max(1, len(series))) as pool:
        return {name: outcome for part in pool.map(probe, series) for name, outcome in part.items()}


def _child(steps: Sequence[str], module: str, timeout: float) -> dict[str, Outcome]:
    """Outcomes up to the first step that ended the child; at least one."""
    env = dict(os.environ)
    if IS_CHECKOUT:
        env["PYTHONPATH"] = os.pathsep.join([*IMPORT_PATHS, *filter(None, [env.get("PYTHONPATH")])])
    code = f"import sys; from {module} import main; main(sys.argv[1:])"
    command = [sys.executable, "-P", "-c", code, *steps]
    found: dict[str, Outcome] = {}
    started = time.monotonic()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True)
        reader.start()
        error = _listen(lines, found, timeout)
        if error:
            os.killpg(process.pid, signal.SIGKILL)
        reader.join()  # ends with the process
        code_ = process.wait()
        complaints.seek(0)
        if len(found) < len(steps):
            error = error or _ending(code_, complaints.read().splitlines())
            found[steps[len(found)]] = Outcome(False, error, round(time.monotonic() - started, 1))
    return found


def _listen(lines: queue.Queue[str | None], found: dict[str, Outcome], timeout: float) -> str:
    """Fill ``found`` until the child ends; an error where it says nothing for too long."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            line = lines.get(timeout=max(0.01, deadline - time.monotonic()))
        except queue.Empty:
            return f"no answer within {timeout:.0f} s"
        if line is None:
            return ""
        if line.startswith(MARK):
            name, outcome = json.loads(line[len(MARK) :])
            found[name] = Outcome(**outcome)
            deadline = time.monotonic() + timeout


def _forward(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _ending(code: int, complaints: Sequence[str]) -> str:
    """Why a child ended in the middle of a step."""
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    last = next((line.strip()[-LONGEST:] for line in reversed(complaints) if line.strip()), "no message")
    return f"the process ended with exit code {code}: {last}"
