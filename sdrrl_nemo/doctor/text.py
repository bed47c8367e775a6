"""The report as text and as JSON, fit for a public bug report: no names of people, machines or their folders."""

from __future__ import annotations

import getpass
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdrrl_nemo import __version__
from sdrrl_nemo.common.provenance import IS_CHECKOUT, REPO_ROOT, git_commit
from sdrrl_nemo.doctor.machine import GIB
from sdrrl_nemo.doctor.packages import settings
from sdrrl_nemo.doctor.verdicts import OK, Facts, Verdict

COMMON_NAMES = {"root", "localhost", "user"}
"""Say nothing of a person or machine, and are words of the report."""


def _secrets() -> Iterator[tuple[str, str]]:
    """(pattern, what stands for it), folders from the inside out."""
    folders = {
        str(REPO_ROOT): "<checkout>" if IS_CHECKOUT else "<site-packages>",
        sys.prefix: "<environment>",
        sys.base_prefix: "<python>",
        os.getcwd(): "<here>",
        tempfile.gettempdir(): "<tmp>",
        str(Path.home()): "~",
    }
    for folder in sorted(folders, key=len, reverse=True):
        if len(folder) > 1:
            yield re.escape(folder) + r"(?![\w.-])", folders[folder]
    yield r"(/home|/Users)/[^/\s:'\"]+", "~"
    for name, stands in ((platform.node(), "<host>"), (_user(), "<user>")):
        if len(name) > 2 and name not in COMMON_NAMES:
            yield rf"(?<![\w-]){re.escape(name)}(?![\w-])", stands


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as containers have
        return ""


def clean(value: Any) -> Any:
    """``value`` (as JSON has them) with every name in its strings replaced."""
    if isinstance(value, dict):
        return {key: clean(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(inner) for inner in value]
    if isinstance(value, str):
        for pattern, stands in _secrets():
            value = re.sub(pattern, stands, value)
    return value


def as_json(facts: Facts, found: Sequence[Verdict], code: int) -> dict[str, Any]:
    """Everything, for programs."""
    project = {"version": __version__, "commit": git_commit(), "installed_as": "checkout" if IS_CHECKOUT else "package"}
    result: dict[str, Any] = clean(
        {
            "project": project,
            "machine": asdict(facts.machine),
            "driver": asdict(facts.driver),
            "packages": [asdict(p) for p in facts.packages],
            "settings": settings(),
            "tries": {name: asdict(outcome) for name, outcome in facts.tries.items()},
            "comet_environment": facts.comet,
            "verdicts": [asdict(v) for v in found],
            "exit_code": code,
        }
    )
    return result


def as_text(facts: Facts, found: Sequence[Verdict]) -> str:
    """What a person reads."""
    where = f"commit {git_commit()}" if IS_CHECKOUT else "installed as a package"
    parts = [
        f"sdrrl {__version__}, {where}",
        _block("Machine", _machine_rows(facts)),
        _block("Packages", _package_rows(facts)),
        _block("What will run", _verdict_rows(found)),
    ]
    return str(clean("\n\n".join(parts)))


def _block(title: str, rows: Iterable[tuple[str, str]]) -> str:
    table = list(rows)
    width = max(len(name) for name, _ in table)
    return "\n".join([title, *(f"  {name:<{width}}  {text}".rstrip() for name, text in table)])


def _size(n: int) -> str:
    return "unknown" if not n else f"{n / GIB:.1f} GiB" if n >= GIB else f"{n >> 20} MiB"


def _machine_rows(facts: Facts) -> Iterator[tuple[str, str]]:
    m, torch = facts.machine, facts.tries["torch"]
    yield "system", f"{m.system}, {m.libc}, {m.architecture}"
    yield "Python", m.python
    yield "cores", f"{m.cores}" + (f", the container allows {m.cores_limit:g}" if m.cores_limit else "")
    limit = f", the container allows {_size(m.memory_limit)}" if m.memory_limit else ""
    yield "memory", _size(m.memory) + limit
    yield "disk free", f"{_size(m.disk_free)} where work/ lies"
    yield "/dev/shm", _size(m.shared_memory)
    yield "open files", str(m.open_files)
    yield "driver", facts.driver.version or facts.driver.error
    for line in facts.driver.gpus:
        yield "GPU", line
    if not torch.ok:
        yield "torch", torch.error
        return
    t = torch.facts
    libraries = "".join(f", {name} {t[key]}" for name, key in (("cuDNN", "cudnn"), ("NCCL", "nccl")) if t.get(key))
    build = f"CUDA {t['cuda']}" if t["cuda"] else "CPU"
    yield "torch", f"{t['version']}, {build} build{libraries}, {len(t['gpus'])} GPU(s) usable"
    for name, value in settings().items():
        yield name, value or "(empty)"


def _package_rows(facts: Facts) -> Iterator[tuple[str, str]]:
    for p in facts.packages:
        if p.name == "python":
            continue
        outcome = facts.tries.get(p.name)
        text = p.version or "absent"
        if p.version and not p.fits:
            text += f"  NOT SERVED: {p.served}"
        elif p.served:
            text += f"  (served {p.served})"
        if p.version and outcome is not None and not outcome.ok and p.name != "torch":
            text += f"  CANNOT BE IMPORTED: {outcome.error}"
        yield p.name, text


def _verdict_rows(found: Sequence[Verdict]) -> Iterator[tuple[str, str]]:
    width = max(len(v.what) for v in found)
    for v in found:
        yield v.status, f"{v.what:<{width}}  {v.text}"
        if v.status != OK and v.action:
            yield "", f"{'':<{width}}  -> {v.action}"
