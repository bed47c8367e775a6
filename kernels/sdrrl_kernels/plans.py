"""Which tile and how many warps a kernel is launched with: the defaults, or what was tuned on this very GPU.

Tuned plans lie in a JSON file, ``kernel_plans.json`` in ``$SDRRL_KERNEL_PLANS``, else in ``sdrrl`` of the usual cache
folder. They are keyed by the device's name, Triton's version and a hash of the kernels' source, so plans of another
card or of older kernels are never taken. Nothing is tuned unless asked for (tools/bench/kernels/tune_plans.py).
Another plan adds a row's numbers in another order: results differ in the last bits, as between two cards.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

FOLDER = "SDRRL_KERNEL_PLANS"
"""Environment variable: the folder of the file; ``off`` takes the defaults whatever was tuned."""
SOURCES = ("cross_entropy_forward.py", "cross_entropy_backward.py")
WORTH = 0.97
"""A plan must take at most this share of the default's time to replace it: less is noise."""
KINDS = ("stream", "resident")
"""A row read in pieces (row statistics, gradient, rescaling), and a row held in registers (loss with gradient)."""


class Plan(NamedTuple):
    """``block``: columns worked on at a time, a power of two; ``warps``: of 32 threads, that work on them."""

    block: int
    warps: int


_forced: dict[str, Plan] = {}


def chosen(kind: str, columns: int, itemsize: int, default: Plan) -> Plan:
    """The tuned plan of this GPU for rows of so many columns, ``itemsize`` bytes each; ``default`` where none is."""
    if _forced:
        return _forced.get(kind, default)
    # without a GPU kernels are compiled or interpreted, always with the defaults
    return _resolved(kind, bucket(columns), itemsize, default) if torch.cuda.is_available() else default


@contextlib.contextmanager
def forced(kind: str, plan: Plan) -> Iterator[None]:
    """Launch with ``plan`` whatever the file says, for as long as it is being timed."""
    _forced[kind] = plan
    try:
        yield
    finally:
        del _forced[kind]


def bucket(columns: int) -> int:
    """The power of two at or above: rows of one bucket share a plan."""
    return 1 << max(0, columns - 1).bit_length()


@functools.cache
def _resolved(kind: str, shape: int, itemsize: int, default: Plan) -> Plan:
    """Looked up, and said on stderr, once a process."""
    found = read(file()).get(device_key(), {}).get(entry(kind, shape, itemsize))
    if found and kind == "resident" and found["block"] != default.block:  # the tile must hold the whole row
        found = None
    plan = Plan(found["block"], found["warps"]) if found else default
    if os.environ.get("RANK", "0") == "0":
        print(line(kind, shape, itemsize, plan, "tuned" if found else "default"), file=sys.stderr, flush=True)
    return plan


def line(kind: str, shape: int, itemsize: int, plan: Plan, origin: str) -> str:
    """What is said about a plan."""
    return (
        f"loss kernel, rows up to {shape} x {itemsize} bytes, {kind}: "
        f"tile {plan.block}, {plan.warps} warps ({origin}; {torch.cuda.get_device_name()})"
    )


def entry(kind: str, shape: int, itemsize: int) -> str:
    """Name of one plan of a device."""
    return f"{kind}/{shape}/{itemsize}"


def device_key() -> str:
    """Device, Triton and kernels that a plan was tuned with."""
    source = b"".join((Path(__file__).parent / name).read_bytes() for name in SOURCES)
    return f"{torch.cuda.get_device_name()} | triton {version('triton')} | {hashlib.sha256(source).hexdigest()[:12]}"


def file() -> Path | None:
    """Where plans are kept; None where they are switched off."""
    named = os.environ.get(FOLDER, "")
    if named == "off":
        return None
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdrrl"
    return (Path(named) if named else usual) / "kernel_plans.json"


def read(path: Path | None) -> dict[str, dict[str, Any]]:
    """Plans by device; none where there is no file, and with a warning where it cannot be read."""
    if path is None or not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for plans in found.values():
            for plan in plans.values():
                _check(Plan(int(plan["block"]), int(plan["warps"])))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as e:
        warnings.warn(f"{path}: no tuned plans are taken from it ({e}); remove it or tune again", stacklevel=2)
        return {}
    return found  # type: ignore[no-any-return]


def _check(plan: Plan) -> None:
    """ValueError for what no kernel can be launched with."""
    for name, value, least, most in (("block", plan.block, 128, 1 << 17), ("warps", plan.warps, 1, 32)):
        if not least <= value <= most or value & (value - 1):
            raise ValueError(f"{name} must be a power of two from {least} to {most}, got {value}")


def candidates(kind: str, columns: int, itemsize: int, default: Plan) -> list[Plan]:
    """Plans worth a try, the default first; each thread gets at least one 16-byte word of a tile."""
    vec = 16 // itemsize
    blocks = [default.block] if kind == "resident" else [1024, 2048, 4096, 8192]
    tried = [
        Plan(block, warps)
        for block in blocks
        for warps in (4, 8, 16, 32)
        if 32 * warps * vec <= block <= max(bucket(columns), default.block)
    ]
    return [default, *(plan for plan in tried if plan != default)]


def tune(kind: str, columns: int, itemsize: int, default: Plan, time: Callable[[Plan], float]) -> tuple[Plan, float]:
    """The fastest candidate by ``time`` (any unit) with its time; the default unless another is clearly faster."""
    times = {plan: time(plan) for plan in candidates(kind, columns, itemsize, default)}
    best = min(times, key=lambda plan: times[plan])
    return (best if times[best] <= WORTH * times[default] else default), times[best]


def write(path: Path, device: str, plans: dict[str, Plan]) -> None:
    """Add the plans of one device to the file, in one step: a reader sees the old file or the new one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged file is replaced
        known = read(path)
    known[device] = {
        **known.get(device, {}),
        **{name: {"block": p.block, "warps": p.warps} for name, p in plans.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as f:
        f.write(json.dumps(known, indent=1, sort_keys=True) + "\n")
        f.flush()
        os.fsync(f.fileno())
    os.replace(f.name, path)
    _resolved.cache_clear()
