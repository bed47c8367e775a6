#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../tools/python" "$0" "$@"'
"""Write the lock files in requirements/ from the environment this runs in.

    python3.12 -m venv /tmp/full                                                  # let pip resolve all
    /tmp/full/bin/pip install -e '.[demo,data,translate,lid,scale,eval,dev]'
    /tmp/full/bin/pip install --no-deps numpy==2.4.6                              # or any other version to be tried
    /tmp/full/bin/python requirements/update_lock.py                                     # write what is needed of it
    .venv/bin/python requirements/update_lock.py --check                                 # is an environment as locked?

Each Python has locks of its own, lock-3.12.txt and lock-dev-3.12.txt: those of the Python that runs this are written.
The locks are complete (install them with ``--no-deps``): the closure of pyproject.toml's requirements over the
installed packages' metadata, less the names in requirements/dropped.txt and what only those pull in.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "requirements"
BUILD = ("setuptools", "wheel")  # build the few source distributions, and this project, without build isolation
PYTHON = "{}.{}".format(*sys.version_info[:2])
LOCK, DEV = f"lock-{PYTHON}.txt", f"lock-dev-{PYTHON}.txt"
# file -> extras of pyproject.toml, first file first
GROUPS = {LOCK: ("demo", "data", "translate", "lid", "eval"), DEV: ("scale", "dev")}
HEADER = "# Written by requirements/update_lock.py on {date}; do not edit. {what}\n"
WHAT = {
    "build.txt": "What builds the few source distributions: install it first, with --no-deps.",
    LOCK: f"All that tools and demo need with Python {PYTHON}; requirements/install.py puts torch first.",
    DEV: f"Test and lint tools, and Ray, beside {LOCK}; see requirements/install.py.",
}


def dropped() -> set[str]:
    """Names in requirements/dropped.txt."""
    lines = (FOLDER / "dropped.txt").read_text(encoding="utf-8").splitlines()
    return {str(canonicalize_name(line.split(":")[0])) for line in lines if line.strip() and not line.startswith("#")}


def closure(requirements: Iterable[str], without: set[str]) -> dict[str, str]:
    """Name -> installed version of every package that ``requirements`` need, at any depth.

    SdrrlError when one of them is not installed.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(Requirement(text), "pyproject.toml") for text in requirements]
    while queue:
        req, parent = queue.pop()
        if parent == "pyproject.toml" and req.marker is not None and not req.marker.evaluate():
            continue  # not for this Python
        name = str(canonicalize_name(req.name))
        if name in without and parent != "pyproject.toml":  # what this project asks for itself is never left out
            continue
        try:
            dist = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise SdrrlError(f"{parent} needs {name}, which is not installed; install or drop it") from None
        found[name] = dist.version.split("+")[0]  # no local label: torch 2.13.0+cpu is asked for as 2.13.0
        for extra in ("", *sorted(req.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in dist.requires or []:
                child = Requirement(text)
                if child.marker is None or child.marker.evaluate({"extra": extra}):
                    queue.append((child, name))
    return found


def locks() -> dict[str, dict[str, str]]:
    """File name -> {package: version}; a package stands in the first file that needs it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    without = dropped()
    files = {"build.txt": closure(BUILD, without)}
    done = set(files["build.txt"])
    for name, extras in GROUPS.items():
        asked = list(project["dependencies"]) if name == LOCK else []
        for extra in extras:
            asked += project["optional-dependencies"][extra]
        files[name] = {k: v for k, v in closure(asked, without).items() if k not in done}
        done |= set(files[name])
    return files


def text_of(name: str, packages: dict[str, str]) -> str:
    """A lock file's text, sorted by package."""
    head = HEADER.format(date=datetime.date.today(), what=WHAT[name])
    return head + "".join(f"{k}=={v}\n" for k, v in sorted(packages.items()))


def differences(name: str) -> list[str]:
    """Packages whose installed version is not the one locked in ``name``."""
    out = []
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"([\w.-]+)==(\S+)", line):
            try:
                have = metadata.version(match[1]).split("+")[0]
            except metadata.PackageNotFoundError:
                have = "absent"
            if have != match[2]:
                out.append(f"{match[1]} is {have}, locked {match[2]}")
    return out


def main(argv: Sequence[str]) -> int:
    """Write the locks, or with ``--check`` compare the environment with them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only; exit code 2 where the environment differs")
    if parser.parse_args(argv).check:
        wrong = [line for name in WHAT for line in differences(name)]
        if wrong:
            raise SdrrlError(f"the environment differs from the locks ({'; '.join(wrong)}); run make again")
        print("the environment equals the locks")
        return 0
    for name, packages in locks().items():
        with atomic_write(FOLDER / name) as f:
            f.write(text_of(name, packages))
        print(f"requirements/{name}: {len(packages)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
