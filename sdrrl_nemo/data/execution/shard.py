"""One shard through one stage: the rows' work, rows that fail, files that appear by rename."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import RowError, SdrrlError
from sdrrl_nemo.common.fileio import sha256_file, write_json, write_jsonl
from sdrrl_nemo.data.execution.isolation import Killers, Span, note_path
from sdrrl_nemo.data.execution.stage import Outcome, Row, Stage

FAILED = "error: "
"""Begins the reason of a row on which a stage raised."""
LONGEST_WAIT = 30.0
"""Seconds between two tries, at most."""


@dataclass(frozen=True)
class Task:
    """What workers need to know of a stage besides its rows.

    ``allowed``: rows of the whole stage that may fail; a single shard that exceeds it stops the run at once.
    """

    stage: Stage[Any, Any]
    directory: Path
    allowed: int
    retries: int


def shard_path(directory: Path, number: int, kind: str) -> Path:
    """File of one shard; ``kind`` is rows, rejects or facts."""
    return directory / (f"{number:05d}.{kind}.json" + ("" if kind == "facts" else "l"))


def work_shard(task: Task, number: int, rows: list[Row], killers: frozenset[Span] | None = None) -> dict[str, Any]:
    """Process one shard and write its files, its facts last; returns the facts.

    ``killers``: the parts of a suspected shard (``isolation.py``) on which earlier workers died.
    """
    begin = time.perf_counter()
    suspected = None if killers is None else Killers(note_path(task.directory, number), killers)
    outcome, failed = _with_retries(task, rows, suspected)
    if suspected is not None:
        suspected.done()
    return write_shard(task.directory, number, outcome, read=len(rows), failed=failed, begin=begin)


def write_shard(
    directory: Path, number: int, outcome: Outcome[Any], *, read: int, failed: int, begin: float
) -> dict[str, Any]:
    """Write the rows and rejects of one shard, then its facts, which are returned."""
    facts = outcome.facts()
    for kind, content in (("rows", outcome.rows), ("rejects", outcome.rejects)):
        path = shard_path(directory, number, kind)
        write_jsonl(path, content)
        facts[kind] = {"count": len(content), "sha256": sha256_file(path)}
    facts |= {"read": read, "failed": failed, "seconds": time.perf_counter() - begin}
    write_json(shard_path(directory, number, "facts"), facts)
    return facts


def too_many_failures(task: Task, failed: int, last: Row) -> SdrrlError:
    """The sentence that stops a run."""
    return SdrrlError(
        f"stage {task.stage.name}: {failed} rows failed where {task.allowed} may (execution.on_error, "
        f"execution.max_failed_fraction); the last one, {last.get('key', 'a row without key')}: "
        f"{last['reason']}: {last['detail']}; mend the cause, delete {task.directory} and run again"
    )


def _with_retries(task: Task, rows: list[Row], killers: Killers | None) -> tuple[Outcome[Any], int]:
    """A failing disk, network or server (OSError) says nothing of a row: wait, try again, then stop the run."""
    for attempt in range(task.retries + 1):
        try:
            return _process(task, rows, killers)
        except OSError as e:
            if attempt == task.retries:
                raise SdrrlError(
                    f"stage {task.stage.name}: {type(e).__name__}: {_one_line(e)}, after {attempt + 1} tries; "
                    "run the same command again when that is mended: what is finished is kept"
                ) from e
            time.sleep(min(LONGEST_WAIT, 0.5 * 2**attempt))
    raise AssertionError("unreachable")


def _process(task: Task, rows: list[Row], killers: Killers | None) -> tuple[Outcome[Any], int]:
    """(outcome, rows that failed)."""
    if task.stage.shard_size is None:
        return task.stage.process(rows), 0  # its one row stands for all: there is nothing to single out
    failed: list[Row] = []
    outcome = _bisect(task, rows, (0, len(rows)), failed, killers)
    return outcome, len(failed)


def _bisect(task: Task, shard: list[Row], span: Span, failed: list[Row], killers: Killers | None) -> Outcome[Any]:
    """Process the rows of ``span``; where that raises, each half for itself, down to the single rows that cannot be
    processed.

    Which rows fail, and what the others are processed together with, follow from the rows alone.
    """
    rows = shard[slice(*span)]
    if killers is not None and span in killers.spans:
        if len(rows) == 1:
            return _drop(task, rows[0], "worker died", "the process that worked on this row alone died", failed)
    else:
        try:
            if killers is not None:
                killers.trying(span)
            return task.stage.process(rows)
        except RowError as e:
            if len(rows) == 1:
                return _drop(task, rows[0], e.reason, _one_line(e), failed)
        except (SdrrlError, OSError):
            raise
        except Exception as e:
            if len(rows) == 1:
                if out_of_memory(e):
                    raise SdrrlError(
                        f"stage {task.stage.name}: the device's memory is too small for row "
                        f"{rows[0].get('key', '?')} alone ({_one_line(e)}); use a smaller model, number type or beam"
                    ) from e
                return _drop(task, rows[0], type(e).__name__, _one_line(e), failed)
            if out_of_memory(e):
                _free_device_memory()
    middle = span[0] + len(rows) // 2
    first = _bisect(task, shard, (span[0], middle), failed, killers)
    return first + _bisect(task, shard, (middle, span[1]), failed, killers)


def _drop(task: Task, row: Row, kind: str, detail: str, failed: list[Row]) -> Outcome[Any]:
    """The outcome of a row that cannot be processed; SdrrlError when there are more of those than may be."""
    reason = f"{FAILED}{kind}"
    failed.append({"key": row.get("key"), "reason": reason, "detail": detail, "row": row})
    if len(failed) > task.allowed:
        raise too_many_failures(task, len(failed), failed[-1])
    return Outcome([], 1, 0, [failed[-1]], Counter([reason]))


def out_of_memory(error: BaseException) -> bool:
    """Whether an engine ran out of host or device memory, whichever library says so."""
    names = {c.__name__ for c in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "out of memory" in str(error).lower()


def _free_device_memory() -> None:
    import sys

    torch = sys.modules.get("torch")  # an engine on another library frees its own
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _one_line(error: BaseException) -> str:
    """The message in one line without memory addresses, which differ from run to run."""
    return re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", " ".join(str(error).split()))[:300]
