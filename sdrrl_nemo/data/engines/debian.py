"""Files of one pinned Debian package: from the system when it is installed, else fetched into a cache without root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import fsync_dir

CACHE = ".cache/debian"
"""Default cache folder, relative to the working directory."""

TIMEOUT_S = 600


def package_root(name: str, version: str, probe: str, cache: str | Path = CACHE) -> Path:
    """Folder that stands for ``/`` of package ``name`` at ``version``.

    ``probe`` is a path inside the package (no leading slash) that must be there; it guards against systems that
    install packages without their documentation. Raises SdrrlError when apt is missing, fails, or does not offer the
    version.
    """
    if _installed_version(name) == version and (Path("/") / probe).exists():
        return Path("/")
    folder = Path(cache) / f"{name}-{version.replace(':', '%3a')}"
    if not folder.is_dir():
        _fetch(name, version, folder)
    if not (folder / probe).exists():
        raise SdrrlError(f"{folder}: '{probe}' is missing; remove the folder and run again")
    return folder


def _installed_version(name: str) -> str | None:
    if shutil.which("dpkg-query") is None:
        return None
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    status, _, version = done.stdout.partition(" ")
    return version if done.returncode == 0 and status == "installed" else None


def _fetch(name: str, version: str, folder: Path) -> None:
    """Download and unpack beside ``folder``, then rename, so that ``folder`` is whole or absent."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise SdrrlError(
                f"'{tool}' is not on this machine; unpack Debian package {name} {version} yourself "
                "and name its root in the backend's option 'folder'"
            )
    work = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    (work / "download").mkdir(parents=True)
    try:
        archive = _download(name, version, work / "download", folder.parent / "apt")
        unpacked = _run(["dpkg-deb", "-x", archive.name, str((work / "root").resolve())], archive.parent)
        if unpacked.returncode != 0:
            raise SdrrlError(f"Debian package {name} {version} cannot be unpacked: {_reason(unpacked)}")
        fsync_dir(work / "root")
        try:
            os.rename(work / "root", folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise
        fsync_dir(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(name: str, version: str, into: Path, state: Path) -> Path:
    """``apt-get download``; when the system's package lists lack the version, once more with lists of our own."""
    get = ["apt-get", "-q", *_sandbox(), "download", f"{name}={version}"]
    done = _run(get, into)
    if done.returncode != 0:
        options = _private_lists(state)
        updated = _run(["apt-get", "-q", *_sandbox(), *options, "update"], into)
        if updated.returncode != 0:
            raise SdrrlError(f"package lists cannot be fetched for Debian package {name}: {_reason(updated)}")
        done = _run(["apt-get", "-q", *_sandbox(), *options, "download", f"{name}={version}"], into)
    found = sorted(into.glob("*.deb"))
    if done.returncode != 0 or len(found) != 1:
        raise SdrrlError(
            f"Debian package {name} {version} cannot be fetched ({_reason(done)}); install that version "
            f"or set the backend's option 'version' to one this machine's package sources offer"
        )
    return found[0]


def _sandbox() -> list[str]:
    """Root's apt drops to a user that cannot write into our folder; stay who we are."""
    return ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []


def _private_lists(state: Path) -> list[str]:
    """apt options that keep package lists and caches under ``state`` instead of the system's folders."""
    root = state.resolve()
    for folder in ("lists/partial", "archives/partial"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    settings = {"Dir::State::Lists": "lists", "Dir::Cache": "", "Dir::Cache::Archives": "archives"}
    options = ["-o", "Debug::NoLocking=1"]
    for key, folder in settings.items():
        options += ["-o", f"{key}={root / folder}"]
    return options


def _run(command: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        raise SdrrlError(f"'{' '.join(command[:2])}' did not finish within {TIMEOUT_S} s; run again") from None


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The tool's own error lines, in one line."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E:")] or lines[-1:]
    return "; ".join(errors) or f"exit code {done.returncode}"
