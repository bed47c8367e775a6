"""Entry points share one frame: ``--config FILE key=value ...``, one-line errors, exit code 2 for bad input."""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

from sdrrl_nemo.common.errors import SdrrlError, one_line
from sdrrl_nemo.common.quiet import quiet_third_parties

RANK_ZERO_SPEAKS_S = 20.0
"""How long another rank leaves the word to rank 0. Ranks reach the same check some seconds apart."""
NO_READER = 141
"""Exit code of a process whose reader has left, as a shell gives it: 128 + SIGPIPE."""


def is_rank_zero() -> bool:
    """True in the one process that speaks and writes: rank 0 under torchrun, or the only process."""
    return os.environ.get("RANK", "0") == "0"


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Call ``main``; an SdrrlError becomes one line on stderr and exit code 2, Ctrl-C 130, a reader that has left 141.

    So does what the system says of a file (no permission, a read-only or full disk): the user can mend it, and no line
    of the code's own trace would help.

    Rank 0 speaks, or the rank that alone knows (``SdrrlError.from_any_rank``). Another rank gives rank 0 time to find
    the same and to end the run; one that is still there after that was alone with its error, and says it.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    quiet_third_parties()
    try:
        return _flushed(main, sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:
        if not _leave_readers_behind():
            raise  # another pipe broke, to a worker or a server
        return NO_READER
    except (SdrrlError, OSError) as e:
        at_once = isinstance(e, SdrrlError) and e.from_any_rank
        if not is_rank_zero() and not at_once:
            _let_rank_zero_speak()
        if progress := sys.modules.get("sdrrl_nemo.common.progress"):  # it imports tqdm; without it no bar is open
            progress.close_bars()
        other = "" if is_rank_zero() else "\n"  # rank 0's bar may have left its line open
        print(f"{other}error: {_said(e) if isinstance(e, OSError) else e}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue", file=sys.stderr)
        return 130


def _flushed(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    """``main``'s exit code once all it printed is out: a reader that left would else be noticed when Python ends,
    where nobody can catch it.
    """
    try:
        code = main(argv) or 0
    except SystemExit:  # --help ends so
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def _leave_readers_behind() -> bool:
    """Point stdout or stderr to /dev/null where nobody reads it any more (``sdrrl ... | head``); whether one was so."""
    left = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # errors and hang-ups are told without being asked for
        if poll.poll(0):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            left = True
    return left


def _said(e: OSError) -> str:
    """The system's words about a file, in one line."""
    files = " -> ".join(str(name) for name in (e.filename, e.filename2) if name is not None)
    said = e.strerror or str(e) or type(e).__name__
    what = f"{files}: {said}" if files else f"{type(e).__name__}: {said}"
    return one_line(f"{what}; check that it is there, that you may use it, and that the disk takes writes")


def _let_rank_zero_speak() -> None:
    """Wait ``RANK_ZERO_SPEAKS_S``. A launcher kills all ranks when one ends with an error, so a rank that ended at once
    would take rank 0 with it before it has said anything.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a run's own handler would save a checkpoint and wait on
    time.sleep(RANK_ZERO_SPEAKS_S)


def config_parser(description: str) -> argparse.ArgumentParser:
    """Parser with ``--config`` and trailing ``key=value`` overrides (in ``overrides``)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override any key of the YAML")
    return parser
