"""The hashes of a finished checkpoint: one file beside it that names each of its files with its SHA-256.

Training writes it and checks it before it resumes; export checks it before it reads what is partly a pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, write_json

MANIFEST = "sha256.json"
"""Name of the file, under the checkpoint's folder."""


def hashed_files(folder: Path) -> list[str]:
    """Relative names of all files that the manifest of ``folder`` names, sorted: every one but itself."""
    names = (str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    return sorted(n for n in names if n != MANIFEST)


def write_manifest(folder: Path, digests: Mapping[str, str]) -> None:
    """Write the SHA-256 of each file, by its relative name."""
    write_json(folder / MANIFEST, digests)


def read_manifest(folder: Path) -> dict[str, str] | None:
    """SHA-256 by relative name; None where there is no manifest, SdrrlError where it cannot be read."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    digests = read_json(path, unique=True)  # one flipped bit can give a file the name of another
    if not isinstance(digests, dict) or not digests:
        raise SdrrlError(f"{path} is damaged (it names no files)")
    return digests


def differing(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Names that only one side has, or whose hashes differ, sorted."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
