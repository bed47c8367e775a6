"""The machine: system, cores, memory, disk and the limits of the container around us. Nothing here can fail."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
CGROUP = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60
"""cgroup 1 writes "no limit" as a number of this size."""


@dataclass(frozen=True)
class Machine:
    """Sizes are bytes; 0: unknown."""

    system: str
    libc: str
    architecture: str
    python: str
    cores: int
    """Cores this process may run on."""
    cores_limit: float
    """Cores' worth of time that the container allows; 0: no limit."""
    memory: int
    memory_limit: int
    """What the container allows; 0: no limit."""
    disk_free: int
    """Where work/ lies, or will lie: below the folder the command is run in."""
    shared_memory: int
    open_files: int

    @property
    def usable_cores(self) -> float:
        """The smaller of cores and limit."""
        return min(self.cores, self.cores_limit or self.cores)

    @property
    def usable_memory(self) -> int:
        """The smaller of memory and limit; 0: unknown."""
        known = [m for m in (self.memory, self.memory_limit) if m]
        return min(known, default=0)


def machine() -> Machine:
    """What this process sees."""
    return Machine(
        system=_system(),
        libc=" ".join(platform.libc_ver()).strip() or "unknown",
        architecture=platform.machine(),
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        cores=len(os.sched_getaffinity(0)),
        cores_limit=cores_limit(CGROUP),
        memory=_meminfo(Path("/proc/meminfo")),
        memory_limit=memory_limit(CGROUP),
        disk_free=_free(Path("work")),
        shared_memory=_size(Path("/dev/shm")),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        name = ""
    return name or platform.system()


def _read(path: Path) -> str:
    """The file's text; empty where there is none, which means "no such limit" here."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def cores_limit(root: Path) -> float:
    """Of control groups in version 2 (``cpu.max``: "quota period") or 1; 0: none."""
    quota, _, period = _read(root / "cpu.max").partition(" ")
    if not quota:
        quota, period = _read(root / "cpu/cpu.cfs_quota_us"), _read(root / "cpu/cpu.cfs_period_us")
    return _number(quota) / _number(period) if _number(period) else 0.0


def memory_limit(root: Path) -> int:
    """Bytes, of control groups in version 2 or 1; 0: none."""
    limit = _number(_read(root / "memory.max") or _read(root / "memory/memory.limit_in_bytes"))
    return limit if limit < UNLIMITED else 0


def _meminfo(path: Path) -> int:
    for line in _read(path).splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return _number(value.split()[0]) * 1024
    return 0


def _free(path: Path) -> int:
    existing = next((p for p in (path, *path.parents) if p.exists()), Path())
    try:
        return shutil.disk_usage(existing).free
    except OSError:
        return 0


def _size(path: Path) -> int:
    try:
        return shutil.disk_usage(path).total
    except OSError:
        return 0
