#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Instruction set D -> packed transfer set (paper, section 3.2) and its data card.

    tools/preprocess_sdrrl.py --config configs/data/demo_por.yaml [key=value ...]

Stopped at any moment, the same command continues; finished, it says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sdrrl_nemo.common.cli import config_parser, run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.check import start_check
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.validation import import_plugins, validate

# Threads that wait for each other sleep instead of spinning: on shared cores spinning costs six times the CPU time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(argv: Sequence[str]) -> int:
    """Parse, check, run; returns the exit code."""
    arguments = config_parser(__doc__.splitlines()[0]).parse_args(argv)
    config = load_config(PreprocessConfig, arguments.config, arguments.overrides)
    validate(config)
    start_check("data")
    import_plugins(config.plugins)

    from sdrrl_nemo.data.preprocess import preprocess

    preprocess(config, Path(config.output_dir))
    write_card(config.output_dir)
    return 0


def write_card(directory: str) -> None:
    """The card follows from the finished files: when it cannot be written, they stay and the run has not failed."""
    from sdrrl_nemo.report.data_card import write_data_card

    try:
        print(f"data card: {write_data_card(directory)}")
    except (SdrrlError, OSError) as e:
        print(f"warning: no data card: {e}; write it with tools/docs/data_card.py --data {directory}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run(main))
