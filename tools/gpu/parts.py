"""The parts of the check, in order of worth: each is a process with a limit, and what its output says."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.cost.gpus import Gpu, gpu
from tools.gpu import training_runs
from tools.gpu.layer_kinds import KINDS, Kind, why_not
from tools.gpu.shapes import SHAPES, SMALL, Shape

SMALL_TESTS = "SDRRL_GPU_TESTS"
"""Set to ``small``, the tests of tests/gpu that can run on a CPU do."""
MOST_WORKERS = 6
SHOWN = 5


@dataclass(frozen=True)
class Part:
    """``needs``: seconds that it takes at least on an H100; with fewer left it is not begun."""

    name: str
    needs: float
    command: Sequence[str]
    result: Callable[[str], dict[str, Any]]
    """Figures of the output; a ``sentence`` in it that is not empty says what is wrong."""
    skip: str = ""
    """Why it cannot run here."""
    after: Sequence[str] = ()
    """Parts without which it cannot run."""
    gate: Path | None = None
    """Its process may be started early and begins when this file is there."""
    codes: Sequence[int] = (0,)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where the check runs. ``card``: None for a CPU and for a GPU that cost/gpus.py does not know."""

    folder: Path
    small: bool
    on_gpu: bool
    card: Gpu | None
    memory_gb: float = 0.0
    """Of the GPU; 0 on a CPU."""

    @property
    def device(self) -> str:
        """As torch names it."""
        return "cuda" if self.on_gpu else "cpu"

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """What is trained."""
        return SMALL if self.small else SHAPES

    @property
    def threads(self) -> int:
        """Of a process; one on a CPU, where the small shapes are too small to be shared."""
        return 1 if self.small else max(1, min(8, os.cpu_count() or 1))

    @property
    def inputs(self) -> Path:
        """Models and packed sets; kept, for the next check takes them again."""
        return self.folder / "inputs"

    def too_small(self, needed_gb: float) -> str:
        """Why a part that needs so much memory cannot run here; empty where it can."""
        if not self.on_gpu or self.memory_gb >= needed_gb:
            return ""
        return f"it needs a GPU with {needed_gb:.0f} GB, this one has {self.memory_gb:.0f}"

    def clear(self) -> None:
        """Remove what an earlier check left, but for the inputs: a finished run would not train again."""
        shutil.rmtree(self.folder / "runs", ignore_errors=True)
        (self.folder / "runs").mkdir(parents=True)

    def file(self, name: str) -> Path:
        """One of this check's own files."""
        return self.folder / "runs" / name


def all_parts(place: Place) -> list[Part]:
    """In order of worth: what decides whether a run can be trusted, then what it costs, then how others do."""
    usable = [kind for kind in KINDS if not why_not(kind)]
    first, others = usable[:1], [kind for kind in KINDS if kind not in usable[:1]]
    return [
        _facts(),
        _inputs(place),
        _tests(place, "kernel-tests", 60, "tests/gpu/test_kernels_cuda.py"),
        _tests(place, "training-tests", 60, "tests/gpu/test_training_cuda.py"),
        *(_recipe(place, shape, kind) for kind in first for shape in place.shapes),
        *(_plain(place, shape) for shape in place.shapes),
        _kernel_times(place),
        *(_recipe(place, shape, kind) for kind in others for shape in place.shapes),
    ]


def _facts() -> Part:
    def result(output: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(output.splitlines()[-1])
        failed = [f"{name} fails: {t['error']}" for name, t in facts["tries"].items() if not t["ok"]]
        return {**facts, "sentence": "; ".join(failed)}

    return Part("facts", 5, [sys.executable, "tools/gpu/facts.py"], result)


def _inputs(place: Place) -> Part:
    names = [shape.name for shape in place.shapes]
    command = [sys.executable, "tools/gpu/made_up.py", str(place.inputs), *names]
    return Part("inputs", 10, command, lambda output: {"shapes": names})


def _tests(place: Place, name: str, needs: float, file: str) -> Part:
    report = place.file(f"{name}.xml")
    command = [sys.executable, "-m", "pytest", file, "-p", "no:cacheprovider", f"--junitxml={report}"]
    if place.on_gpu and not place.small and importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(min(MOST_WORKERS, os.cpu_count() or 1)), "--dist", "loadgroup"]
    small = {SMALL_TESTS: "small"} if place.small else {}
    return Part(name, needs, command, lambda _: _of_junit(report), codes=(0, 1), environment=small)


def _of_junit(report: Path) -> dict[str, Any]:
    """Counts of a test run, the first failures and the reasons of what was skipped."""
    if not report.is_file():
        raise SdrrlError("pytest wrote no report")
    found: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": [], "reasons": {}}
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = next((case.find(tag) for tag in ("failure", "error") if case.find(tag) is not None), None)
        skipped = case.find("skipped")
        if wrong is not None:
            found["failed"] += 1
            said = " ".join((wrong.get("message") or "").split())[:200]
            found["failures"].append(f"{case.get('name')}: {said}")
        elif skipped is not None:
            found["skipped"] += 1
            reason = skipped.get("message") or ""
            found["reasons"][reason] = found["reasons"].get(reason, 0) + 1
        else:
            found["passed"] += 1
    more = found["failures"]
    found["failures"] = more[:20]
    return {**found, "sentence": f"{found['failed']} tests fail: {'; '.join(more[:SHOWN])}" if more else ""}


def _recipe(place: Place, shape: Shape, kind: Kind) -> Part:
    """30 steps of the recipe with one kind of layers."""
    name = f"{shape.name}-{kind.name}"
    run, gate = place.file(name), place.file(f"{name}.go")
    model, data = place.inputs / "models" / shape.name, place.inputs / "data" / shape.name
    content = training_runs.settings(shape, model, data, run, place.threads if not place.on_gpu else 0)
    config = training_runs.write_settings(place.file(f"{name}.yaml"), content)

    def result(_: str) -> dict[str, Any]:
        measured = training_runs.recipe_result(shape, run, place.inputs)
        return {**measured, "predicted": _prediction(place, shape, config, kind.name == "te")}

    needs = 25.0 if shape.name == "smol" else 30.0
    command = training_runs.recipe_command(kind, config, gate)
    skip = why_not(kind) or place.too_small(shape.memory_gb[0])
    return Part(name, needs, command, result, skip=skip, after=("inputs",), gate=gate)


def _plain(place: Place, shape: Shape) -> Part:
    """The same rows through transformers' model and torch's optimiser."""
    plan = place.file(f"{shape.name}-plain.json")
    model, data = place.inputs / "models" / shape.name, place.inputs / "data" / shape.name
    command = training_runs.plain_command(shape, model, data, place.device, plan)

    def result(_: str) -> dict[str, Any]:
        return training_runs.plain_result(shape, plan, place.inputs, place.card)

    skip = place.too_small(shape.memory_gb[1])
    return Part(f"{shape.name}-plain", 25, command, result, skip=skip, after=("inputs",))


def _prediction(place: Place, shape: Shape, config: Path, fused: bool) -> dict[str, Any] | None:
    """None for a GPU that the planner does not know. On a CPU an H100's stands there, to run the code."""
    card = place.card if place.on_gpu else gpu("h100-80g")
    return training_runs.predicted(shape, config, card, fused) if card is not None else None


def _kernel_times(place: Place) -> Part:
    def result(output: str) -> dict[str, Any]:
        rows = list(_json_lines(output))
        wrong = [f"{r['implementation']}: {r['error']}" for r in rows if "error" in r and "implementation" in r]
        ours = [w for w in wrong if w.startswith("ours")]
        return {"rows": rows, "peers_failed": wrong, "sentence": "; ".join(ours)}

    command = [sys.executable, "tools/bench/kernels/bench_kernels.py", "--device", place.device, "--seconds", "40"]
    command += ["--small"] if place.small else []
    return Part("kernel-times", 30, command, result)


def _json_lines(output: str) -> Iterator[dict[str, Any]]:
    """Those lines of a mixed output that are JSON objects."""
    for line in output.splitlines():
        if line.startswith("{"):
            yield json.loads(line)
