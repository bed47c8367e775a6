"""What made a result: package versions, git commit, command, machine; kept beside every run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parents[2]
"""The checkout; where the wheel is installed, its folder site-packages."""
IS_CHECKOUT = (REPO_ROOT / "pyproject.toml").is_file()
IMPORT_PATHS = (str(REPO_ROOT), str(REPO_ROOT / "kernels"))
"""For PYTHONPATH of a child process: this checkout's code, whatever else is installed."""
PACKAGES = ("torch", "megatron-core", "nemo-toolkit", "transformers", "lightning", "numpy", "triton", "sacrebleu")


def git_commit() -> str:
    """Commit of the checkout, with ``+dirty`` when tracked files differ; ``unknown`` outside git.

    An installed wheel has none, even where its environment lies in somebody's repository.
    """
    if not IS_CHECKOUT:
        return "unknown"
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=REPO_ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=REPO_ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+dirty" if dirty else "")


def versions() -> dict[str, str]:
    """Installed version of each package that can change a number."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def provenance() -> dict[str, Any]:
    """Everything a reader needs to rerun: versions, commit, command line, machine."""
    return {
        "command": [*Path(sys.argv[0]).name.split(), *sys.argv[1:]],  # "sdrrl train" is two words
        "git_commit": git_commit(),
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
        "versions": versions(),
    }


def script_path(name: str) -> Path:
    """Path of ``tools/x.py`` or ``recipes/x.py``: in the checkout, or where the wheel puts those folders."""
    return (REPO_ROOT if IS_CHECKOUT else REPO_ROOT / "sdrrl_nemo") / name
