#!/usr/bin/env python3
"""Make the environment that COMET runs in: its pins (torchmetrics, setuptools, numpy) do not fit beside NeMo's.

CometKiwi filters translations in it (docs/quality.md) and wmt22-comet-da scores them (docs/scorers.md).

python tools/make_comet_env.py            # .venv-comet; the same command again does nothing, or mends it
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, sha256_file

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "comet.txt"
MARK = ".installed"
CHECK = (  # the classes of wmt22-cometkiwi-da (quality estimation) and wmt22-comet-da (scores with references)
    "import sys; from comet.models import str2model; [str2model[k] for k in ('unified_metric', 'regression_metric')]; "
    "print('unbabel-comet with Python', sys.version.split()[0])"
)


def _run(command: Sequence[str], what: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        last = ([line.strip() for line in done.stdout.splitlines() if line.strip()] or ["no message"])[-1]
        raise SdrrlError(f"{what} failed: {last}")
    return done.stdout


def make(folder: Path, pip_args: Sequence[str]) -> bool:
    """Create or mend the environment; False when it is there already, made from this lock."""
    mark, wanted = folder / MARK, sha256_file(LOCK)
    if mark.is_file() and mark.read_text(encoding="utf-8").strip() == wanted:
        return False
    venv.EnvBuilder(clear=True, with_pip=True, symlinks=os.name != "nt").create(folder)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps", *pip_args]
    _run([*pip, "-r", str(LOCK)], f"installing {LOCK.name}")
    print(_run([python, "-c", CHECK], f"importing comet in {folder}").strip().splitlines()[-1])
    with atomic_write(mark) as f:
        f.write(wanted + "\n")
    return True


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-comet")
    parser.add_argument("--pip-args", default="", help="more arguments of pip install, in one string")
    args = parser.parse_args(argv)
    made = make(args.folder, args.pip_args.split())
    print(f"{args.folder}: {'made' if made else 'there already'}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
