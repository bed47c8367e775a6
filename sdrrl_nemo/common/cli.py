"""Entry points share one frame: ``--config FILE key=value ...``, one-line errors, exit code 2 for bad input."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.quiet import quiet_third_parties


def is_rank_zero() -> bool:
    """True in the one process that speaks and writes: rank 0 under torchrun, or the only process."""
    return os.environ.get("RANK", "0") == "0"


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Call ``main``; an SdrrlError becomes one line on stderr and exit code 2, Ctrl-C 130.

    Rank 0 speaks, or the rank that alone knows (``SdrrlError.from_any_rank``).
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    quiet_third_parties()
    try:
        return main(sys.argv[1:] if argv is None else argv) or 0
    except SdrrlError as e:
        if is_rank_zero() or e.from_any_rank:
            if progress := sys.modules.get("sdrrl_nemo.common.progress"):  # it imports tqdm; without it no bar is open
                progress.close_bars()
            other = "" if is_rank_zero() else "\n"  # rank 0's bar may have left its line open
            print(f"{other}error: {e}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue", file=sys.stderr)
        return 130


def config_parser(description: str) -> argparse.ArgumentParser:
    """Parser with ``--config`` and trailing ``key=value`` overrides (in ``overrides``)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override any key of the YAML")
    return parser
