"""The recipe on a GPU with each kind of layers, started by torchrun: losses, SIGTERM, resume, export, import.

Skipped where there is no GPU; ``SDRRL_GPU_TESTS=small`` runs the same functions on a CPU, as `tools/gpu_check.py
--small` does. The model is tiny, its weights and rows are drawn by name (tools/gpu/made_up.py), and the losses that it
must have were computed once by transformers on a CPU in fp32 (tests/data/gpu_first_losses.json).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import warm
from tests.launch import descendants
from tools.gpu import training_runs
from tools.gpu.child import NO_TF32, Child, torchrun
from tools.gpu.first_losses import compared, reference
from tools.gpu.layer_kinds import KINDS, Kind, why_not
from tools.gpu.made_up import inputs
from tools.gpu.parts import SMALL_TESTS
from tools.gpu.shapes import TEST, Shape

SMALL = os.environ.get(SMALL_TESTS) == "small"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (torch.cuda.is_available() or SMALL),
        reason=f"needs a CUDA device, torch sees none; {SMALL_TESTS}=small runs it on the CPU",
    ),
]
LIMIT = 240.0
SEEN = 3
"""Steps that a run may log before it is told to end."""


@dataclass(frozen=True)
class Trained:
    """A run that was ended by SIGTERM and continued."""

    kind: Kind
    shape: Shape
    run: Path
    inputs: Path
    first: str
    """What it said until it ended."""
    rows_at_first: int
    rows: list[dict[str, Any]]


def _each_kind() -> Iterator[Any]:
    """Those of one kind go to one worker, which trains once for them."""
    for kind in KINDS:
        marks = [pytest.mark.xdist_group(kind.name)] if importlib.util.find_spec("xdist") else []
        yield pytest.param(kind, marks=marks, id=kind.name)


@pytest.fixture(scope="module", params=list(_each_kind()))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """SIGTERM after a few steps, then the same command again until the end; with the distributed optimiser."""
    kind: Kind = request.param
    if reason := why_not(kind):
        pytest.skip(f"{kind.words}: {reason}")
    if SMALL and not torch.cuda.is_available():
        warm.prepare()  # imports meanwhile
    folder = tmp_path_factory.mktemp(kind.name)
    shape = TEST if kind.fp32 else replace(TEST, precision="bf16")
    model, data = inputs(shape, folder)
    content = training_runs.settings(shape, model, data, folder / "run", threads=1 if SMALL else 0)
    content["optim"]["use_distributed_optimizer"] = True
    content["trainer"]["save_every"] = 0
    command = training_runs.recipe_command(kind, training_runs.write_settings(folder / "config.yaml", content))
    first = _ended_early(command, folder)
    at_first = len(_rows(folder / "run"))
    Child.start(command, folder / "second.log", 1, NO_TF32).finish(LIMIT)
    return Trained(kind, shape, folder / "run", folder, first, at_first, _rows(folder / "run"))


def _ended_early(command: list[str], folder: Path) -> str:
    """Output of the run, whose process gets SIGTERM once some steps are logged, as a cluster's time limit sends it."""
    child = Child.start(command, folder / "first.log", 1, NO_TF32)
    deadline = time.monotonic() + LIMIT
    while len(_rows(folder / "run")) < SEEN:
        assert child.process.poll() is None and time.monotonic() < deadline, child.text()[-4000:]
        time.sleep(0.005)
    os.killpg(descendants(child.process.pid)[0], signal.SIGTERM)  # as torchrun does: to all processes of the rank
    return child.finish(LIMIT)


def _rows(run: Path) -> list[dict[str, Any]]:
    """Whole lines of metrics.jsonl."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_losses_are_those_of_a_cpu_in_fp32(trained: Trained) -> None:
    """Over all steps, those before SIGTERM and those after: a lost moment of Adam would show."""
    assert [r["step"] for r in trained.rows] == list(range(1, trained.shape.steps + 1))
    ran = {key: [r[name] for r in trained.rows] for key, name in (("losses", "loss"), ("grad_norms", "grad_norm"))}
    found = compared(ran, reference(TEST, trained.inputs), trained.shape.precision)
    assert not found["sentence"], (found, ran["losses"])
    assert ran["losses"][-1] < ran["losses"][0] - 1.0


def test_sigterm_saves_and_the_same_command_continues(trained: Trained) -> None:
    assert "SIGTERM after step" in trained.first
    assert SEEN <= trained.rows_at_first < trained.shape.steps
    assert (trained.run / "finished.json").is_file()
    assert not list((trained.run / "checkpoints").glob("unfinished-*"))


def test_export_compares_logits_and_holds_what_was_trained(trained: Trained, tmp_path: Path) -> None:
    said = _tool(tmp_path, "tools/export_hf.py", "--run", str(trained.run), "--output", str(tmp_path / "hf"))
    difference = re.search(r"max abs diff of logits, transformers vs Megatron: (\S+) over", said)
    assert difference is not None and float(difference[1]) < 1e-3
    base = load_file(trained.inputs / "models" / TEST.name / "model.safetensors")
    new = load_file(tmp_path / "hf" / "model.safetensors")
    assert new.keys() == base.keys()
    assert all(not torch.equal(new[name], base[name].float()) for name in base if "norm" not in name)


@pytest.mark.parametrize("tp", [1, 2])
def test_import_at_a_tensor_parallel_size_keeps_every_number(trained: Trained, tmp_path: Path, tp: int) -> None:
    """Hugging Face folder -> Megatron checkpoint -> Hugging Face folder."""
    if SMALL and tp == 1:
        pytest.skip("a CPU has tp=2, of which tp=1 is a part")
    model, checkpoint = trained.inputs / "models" / TEST.name, tmp_path / "step-000001"
    words = ["--model", str(model), "--output", str(checkpoint), "--tp", str(tp)]
    _tool(tmp_path, "tools/import_hf.py", *words, processes=tp)
    words = ["--checkpoint", str(checkpoint), "--base", str(model), "--output", str(tmp_path / "hf")]
    _tool(tmp_path, "tools/export_hf.py", *words)
    base, new = load_file(model / "model.safetensors"), load_file(tmp_path / "hf" / "model.safetensors")
    assert new.keys() == base.keys()
    assert all(torch.equal(new[name], base[name].float()) for name in base)


def _tool(folder: Path, script: str, *arguments: str, processes: int = 1) -> str:
    """Output of a tool that works on the CPU, whichever layers trained; under torchrun with several processes.

    Without a GPU forked processes save the imports.
    """
    if SMALL and not torch.cuda.is_available():
        done = warm.torchrun(processes, script, *arguments) if processes > 1 else warm.python(script, *arguments)
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout
    command = [script, *arguments]
    whole = torchrun(*command, processes=processes) if processes > 1 else [sys.executable, *command]
    return Child.start(whole, folder / f"{Path(script).stem}.log", threads=1).finish(LIMIT)
