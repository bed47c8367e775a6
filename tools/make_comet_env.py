#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Make the environment that COMET runs in: its pins (torchmetrics, setuptools, numpy) do not fit beside NeMo's.

CometKiwi, xCOMET and MetricX filter translations in it (docs/quality.md), wmt22-comet-da scores them (docs/scorers.md).

    tools/make_comet_env.py                             # .venv-comet; the same command again does nothing, or mends it
    tools/make_comet_env.py --python /path/to/python3.12

COMET's numpy and sentencepiece have no wheels for Python 3.13: there, python3.12 or python3.11 on the PATH is taken.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, sha256_file
from sdrrl_nemo.common.provenance import IS_CHECKOUT

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "comet.txt"
INSTALL = ROOT / "requirements" / "install.py"
FOLDER = (ROOT if IS_CHECKOUT else Path()) / ".venv-comet"
"""Installed as a package: in the folder that the command runs in, where the engine looks too."""
MARK = ".installed"
PYTHONS = ("3.12", "3.11")
CHECK = (  # the classes of wmt22-cometkiwi-da, wmt22-comet-da and xCOMET, and mT5 for MetricX
    "import sys; from comet.models import str2model; from transformers import MT5ForConditionalGeneration; "
    "[str2model[k] for k in ('unified_metric', 'regression_metric', 'xcomet_metric')]; "
    "print('unbabel-comet with Python', sys.version.split()[0])"
)


def _run(command: Sequence[str], what: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        last = ([line.strip() for line in done.stdout.splitlines() if line.strip()] or ["no message"])[-1]
        raise SdrrlError(f"{what} failed: {last}")
    return done.stdout


def find_python(named: str | None) -> str:
    """The interpreter to make the environment with: the named one, this one, or one on the PATH that has wheels. One of
    the PATH that does not start is passed over: pyenv puts names there whose versions are switched off."""
    for python in [named] if named else [sys.executable, *(f"python{v}" for v in PYTHONS)]:
        path = shutil.which(python)
        version = _version(path, python == named) if path else ""
        if path and version in PYTHONS:
            return path
        if named and version:
            raise SdrrlError(f"--python {named} is Python {version}; COMET's packages need one of {', '.join(PYTHONS)}")
    raise SdrrlError(
        "COMET's packages need Python 3.12 or 3.11 and none was found; name one: --python /path/to/python3.12"
    )


def _version(path: str, must_start: bool) -> str:
    """``3.12``; empty where it does not start, SdrrlError where it must."""
    try:
        return _run([path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], f"starting {path}").strip()
    except SdrrlError:
        if must_start:
            raise
        return ""


def make(folder: Path, python: str | None, pip_args: Sequence[str]) -> bool:
    """Create or mend the environment; False when it is there already, made from this lock."""
    if not LOCK.is_file():
        raise SdrrlError(f"{LOCK} is missing: COMET's environment is made from a checkout of this project")
    mark, wanted = folder / MARK, sha256_file(LOCK)
    if mark.is_file() and mark.read_text(encoding="utf-8").strip() == wanted:
        return False
    _run([find_python(python), "-m", "venv", "--clear", str(folder)], f"making {folder}")
    inside = str(folder / "bin" / "python")
    _run([inside, str(INSTALL), "--lock", str(LOCK), f"--pip-args={' '.join(pip_args)}"], f"installing {LOCK.name}")
    print(_run([inside, "-c", CHECK], f"importing comet in {folder}").strip().splitlines()[-1])
    with atomic_write(mark) as f:
        f.write(wanted + "\n")
    return True


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--python", help="Python 3.11 or 3.12 (default: this one, or one on the PATH)")
    parser.add_argument("--pip-args", default="", help="more arguments of pip install, in one string")
    args = parser.parse_args(argv)
    made = make(args.folder, args.python, args.pip_args.split())
    print(f"{args.folder}: {'made' if made else 'there already'}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
