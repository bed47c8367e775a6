#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Data card of a finished transfer set: data_card.html and data_card.md.

    tools/docs/data_card.py --data DIR [--output DIR] [--samples 20]

tools/preprocess_sdrrl.py writes it at the end of a run; this writes it again, or with other samples, from the files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sdrrl_nemo.common.cli import run


def main(argv: Sequence[str]) -> int:
    """Parse, write, print the path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="output_dir of a finished preprocessing run")
    parser.add_argument("--output", help="folder for the card; default: beside the set")
    parser.add_argument("--samples", type=int, default=20, help="samples shown of each subset (default: 20)")
    arguments = parser.parse_args(argv)
    from sdrrl_nemo.report.data_card import write_data_card

    print(f"data card: {write_data_card(arguments.data, arguments.output, arguments.samples)}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
