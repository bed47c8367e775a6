#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Lines, files, functions and comments of the code at a commit: how nice it is to enter, as far as numbers tell.

    tools/bench/code_size.py c43e8c1 HEAD

A comment line is one with a comment in it; docstrings are counted apart. ``entered``: the files that people open first.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import statistics
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Sequence
from typing import Any

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError

FOLDERS = ("kernels", "recipes", "sdrrl_nemo", "tools")
ENTERED = (
    "recipes/sdrrl_pretrain.py",
    "tools/preprocess_sdrrl.py",
    "sdrrl_nemo/train/fit.py",
    "sdrrl_nemo/train/trainer.py",
    "sdrrl_nemo/train/loss.py",
    "sdrrl_nemo/train/batches.py",
    "sdrrl_nemo/train/strategy.py",
    "sdrrl_nemo/data/pipeline.py",
    "sdrrl_nemo/data/steps.py",
    "sdrrl_nemo/data/methods.py",
    "sdrrl_nemo/data/packing/packed.py",
    "sdrrl_nemo/data/packed.py",
    "kernels/sdrrl_kernels/api.py",
)
"""Under their old and new names; those that a commit lacks are left out."""


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SdrrlError(f"git {' '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def sources(commit: str) -> Iterator[tuple[str, str]]:
    """(path, text) of every Python file of the code at ``commit``."""
    for name in _git("ls-tree", "-r", "--name-only", commit, *FOLDERS).splitlines():
        if name.endswith(".py"):
            yield name, _git("show", f"{commit}:{name}")


def comment_lines(text: str) -> int:
    """Lines with a comment, the first line of a script apart."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return len({t.start[0] for t in tokens if t.type == tokenize.COMMENT and not t.string.startswith("#!")})


def measure(files: dict[str, str]) -> dict[str, Any]:
    """Counts over the files."""
    trees = [ast.parse(text) for text in files.values()]
    functions = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lines = sum(len(text.splitlines()) for text in files.values())
    comments = sum(map(comment_lines, files.values()))
    return {
        "files": len(files),
        "lines": lines,
        "functions": len(functions),
        "function_lines_p90": round(statistics.quantiles(functions, n=10)[-1], 1) if len(functions) > 1 else None,
        "longest_file": max((len(text.splitlines()) for text in files.values()), default=0),
        "comment_lines_per_100": round(100 * comments / max(1, lines), 1),
    }


def main(argv: Sequence[str]) -> None:
    """Print one JSON object: commit -> figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="+", metavar="COMMIT")
    args = parser.parse_args(argv)
    out = {}
    for commit in args.commits:
        files = dict(sources(commit))
        entered = {name: text for name, text in files.items() if name in ENTERED}
        out[_git("rev-parse", "--short", commit).strip()] = {"all": measure(files), "entered": measure(entered)}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    sys.exit(run(main))
