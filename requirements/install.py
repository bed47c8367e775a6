"""Install the locked packages and this project into the environment whose Python runs this file.

    python -m venv .venv && .venv/bin/python requirements/install.py        # what `make install` does
    python requirements/install.py --keep torch,triton --no-dev             # in an image that brings its own torch
    python requirements/install.py --lock requirements/comet.txt            # one lock alone, without this project

torch comes first, with its own dependencies: the public index serves a CUDA build, which needs some 15 libraries of
NVIDIA that no lock names, other indexes a CPU build, which needs none. Everything else is installed as the lock of
this Python says, with ``--no-deps``. Only the standard library is used here, since nothing is installed yet.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PROJECT = FOLDER.parent
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install")
ABOUT_TORCH = """
import torch
cuda, gpus = torch.version.cuda, torch.cuda.device_count()
print(f"torch {torch.__version__}:", f"CUDA {cuda} build, {gpus} GPU(s) here" if cuda else "CPU build")
"""


class Failed(Exception):
    """One sentence for the user."""


def lock_files(python: tuple[int, int], dev: bool) -> list[Path]:
    """Locks of this Python; Failed where there are none."""
    version = ".".join(map(str, python))
    names = ["lock", "lock-dev"] if dev else ["lock"]
    files = [FOLDER / f"{name}-{version}.txt" for name in names]
    if not all(f.is_file() for f in files):
        known = sorted(f.stem.removeprefix("lock-dev-") for f in FOLDER.glob("lock-dev-*.txt"))
        raise Failed(
            f"there is no lock for Python {version}; use one of {', '.join(known)}: make PYTHON=python{known[0]}"
        )
    return files


def packages(files: Sequence[Path]) -> dict[str, str]:
    """Name -> ``name==version`` of every line of the locks."""
    lines = [line.strip() for f in files for line in f.read_text(encoding="utf-8").splitlines()]
    return {line.split("==")[0]: line for line in lines if line and not line.startswith("#")}


def pip(arguments: Sequence[str], more: Sequence[str], what: str) -> None:
    """Run pip; Failed with its name for the step where it does not succeed (its own message stands above)."""
    if subprocess.run([*PIP, *arguments, *more], check=False).returncode:
        raise Failed(f"pip could not install {what}; its message is above")


def install_torch(wanted: str, constraints: Path, more: Sequence[str]) -> None:
    """torch and what it depends on, in the locked versions where the lock names them; checked by an import."""
    pip([wanted, "--constraint", str(constraints)], more, wanted)
    done = subprocess.run([sys.executable, "-c", ABOUT_TORCH], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Failed(f"{wanted} is installed but cannot be imported ({last}); remove the environment and install again")
    print(done.stdout.strip(), flush=True)


def present(name: str) -> bool:
    """True where a package of this name is installed, in any version."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def install(locks: Sequence[Path], keep: set[str], editable: bool, more: Sequence[str]) -> None:
    """All steps, in order; what is there already in the wanted version is left as it is."""
    wanted = packages(locks)
    if missing := sorted(name for name in keep if not present(name)):
        raise Failed(f"--keep {','.join(sorted(keep))}: {missing[0]} is not installed here")
    pip(["--quiet", "--no-deps", "-r", str(FOLDER / "build.txt")], more, "what builds packages")
    if "torch" not in keep:
        install_torch(wanted["torch"], locks[0], more)
        if present("triton"):  # a CUDA build brings the triton that it was built for
            keep = keep | {"triton"}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
        f.write("\n".join(line for name, line in wanted.items() if name not in keep | {"torch"}))
        f.flush()
        pip(["--quiet", "--no-deps", "--no-build-isolation", "-r", f.name], more, "the locked packages")
    if editable:
        pip(["--quiet", "--no-deps", "--no-build-isolation", "--editable", str(PROJECT)], more, "this project")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", default="", help="packages that stay as they are, with commas: torch,triton")
    parser.add_argument("--no-dev", action="store_true", help="leave out the tools for tests and lint")
    parser.add_argument("--lock", type=Path, help="install this lock alone, and not this project")
    parser.add_argument("--no-project", action="store_true", help="leave out this project itself")
    parser.add_argument("--pip-args", default="", help="more arguments of pip install, in one string")
    args = parser.parse_args()
    keep = {name.strip() for name in args.keep.split(",") if name.strip()}
    try:
        locks = [args.lock] if args.lock else lock_files(sys.version_info[:2], not args.no_dev)
        install(locks, keep, not (args.lock or args.no_project), args.pip_args.split())
    except Failed as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
