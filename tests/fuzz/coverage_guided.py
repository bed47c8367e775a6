"""One reader of files under atheris, which keeps inputs that reach new lines; atheris is no dependency of the project.

python -m pip install --target /tmp/atheris --no-deps atheris==3.0.0
PYTHONPATH=.:kernels:/tmp/atheris python -m tests.fuzz.coverage_guided PARSER --seconds 60 [--corpus FOLDER]

Ends with 1 and the input's path at the first exception that is no SdrrlError of one line, or a reader's hang.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz.harness import only_sdrrl_error

BYTE_LEVEL = [
    "jsonl",
    "json",
    "alpaca",
    "sharegpt",
    "records.json",
    "moses",
    "tmx",
    "tsv",
    "mallard",
    "muse",
    "dict.dz",
    "dict.index",
    "dict.text",
    "segmentation",
    "PreprocessConfig",
    "idx",
    "manifest",
    "gguf",
]
"""Readers in Python: what a library in C or Rust does inside, coverage of Python's lines cannot see."""
OURS = ("sdrrl_nemo.common", "sdrrl_nemo.data", "sdrrl_nemo.model.gguf", "gguf", "gzip", "json")
"""Not PyYAML: it takes seconds for a nesting of a thousand, ten times that when every line is counted."""


def main() -> int:
    """Fuzz one reader."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reader", choices=BYTE_LEVEL)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="folder that keeps what reaches new lines")
    args = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print("error: atheris is not installed; see this module's docstring", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=list(OURS)):
        from tests.fuzz.parsers import PARSERS, names, place

        chosen = PARSERS[args.reader]
        folder = Path(tempfile.mkdtemp())
        path = place(chosen, folder)
        corpus = args.corpus or folder / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        (corpus / "valid").write_bytes(chosen.valid())
        path.write_bytes(chosen.valid())
        only_sdrrl_error(names(chosen, path), lambda: chosen.read(path))  # imports what it needs, instrumented
    for seed in Path(__file__).with_name("seeds").glob(f"{args.reader}--*"):
        (corpus / seed.name).write_bytes(seed.read_bytes())

    def one(data: bytes) -> Any:
        path.write_bytes(data)
        only_sdrrl_error(names(chosen, path), lambda: chosen.read(path))

    options = [f"-max_total_time={args.seconds}", "-max_len=8192", "-verbosity=0", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
