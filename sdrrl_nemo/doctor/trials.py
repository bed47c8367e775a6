"""What the doctor tries, in a child process: each step returns facts or raises (see ``probes``)."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from sdrrl_nemo.common.quiet import quiet_third_parties
from sdrrl_nemo.doctor.probes import LONGEST, MARK, Outcome


def torch_facts() -> dict[str, Any]:
    """Version, build and GPUs of torch."""
    import torch

    facts: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda or "",
        "gloo": torch.distributed.is_available() and torch.distributed.is_gloo_available(),
        "available": torch.cuda.is_available(),
        "gpus": [],
    }
    if facts["available"]:
        facts |= {"cudnn": str(torch.backends.cudnn.version()), "nccl": ".".join(map(str, torch.cuda.nccl.version()))}
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            facts["gpus"].append({"name": p.name, "memory": p.total_memory, "capability": f"{p.major}.{p.minor}"})
    elif facts["cuda"]:
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as e:  # torch's own sentence: no driver, or one that is too old
            facts["why"] = str(e).splitlines()[0]
    return facts


def loss() -> dict[str, Any]:
    """The loss forward and backward: torch's path on the CPU and, where a GPU is, the Triton kernel on it."""
    import torch

    from sdrrl_kernels import cross_entropy

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    values = []
    for device in devices:
        logits = torch.arange(12.0, device=device).reshape(3, 4).requires_grad_()
        labels = torch.tensor([0, 3, 1], device=device)
        subset_ids = torch.zeros(3, dtype=torch.int64, device=device)
        out = cross_entropy(logits * 1, labels, torch.ones(3, device=device), subset_ids, 1)
        out.loss.backward()
        values.append(out.loss.item())
    if max(values) - min(values) > 1e-4:
        raise ArithmeticError(f"the kernel on the GPU gives {values[1]}, torch on the CPU {values[0]}")
    return {"devices": devices}


def training() -> dict[str, Any]:
    """Everything that a training run imports."""
    from sdrrl_nemo.compat.start import prepare

    prepare()
    importlib.import_module("sdrrl_nemo.train.trainer")
    return {}


def imports(*modules: str) -> Callable[[], dict[str, Any]]:
    """A step that imports modules, after the adaptation to machines without a GPU where they need it."""

    def step() -> dict[str, Any]:
        for name in modules:
            importlib.import_module(name)
        return {}

    return step


def export() -> dict[str, Any]:
    """Everything that the export imports."""
    training()
    importlib.import_module("sdrrl_nemo.model.export")
    return {}


def flash_attention() -> dict[str, Any]:
    """The function that the local layers call."""
    module = importlib.import_module("flash_attn")
    if not callable(getattr(module, "flash_attn_varlen_func", None)):
        raise ImportError("flash_attn has no flash_attn_varlen_func")
    return {}


STEPS: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": torch_facts,
    "loss": loss,
    "training": training,
    "export": export,
    "preprocessing": imports("transformers", "sdrrl_nemo.data.steps", "sdrrl_nemo.report.data_card"),
    "evaluation": imports("sdrrl_nemo.eval.base_and_trained", "sdrrl_nemo.report.build"),
    "planner": imports("sdrrl_nemo.plan.search", "sdrrl_nemo.plan.models"),
    "triton": imports("triton", "triton.language"),
    "transformer-engine": imports("transformer_engine.pytorch"),
    "flash-attn": flash_attention,
    "apex": imports("apex", "amp_C"),
}


def main(names: Sequence[str], steps: dict[str, Callable[[], dict[str, Any]]] = STEPS) -> None:
    """Run steps and write the outcome of each; the parent knows from what is missing where this process ended."""
    quiet_third_parties()
    for name in names:
        begun = time.monotonic()
        try:
            outcome = Outcome(True, facts=steps[name]())
        except Exception as e:  # whatever a broken installation raises is what the report is for
            said = next((line.strip() for line in str(e).splitlines() if line.strip()), "no message")
            outcome = Outcome(False, f"{type(e).__name__}: {said[:LONGEST]}")
        row = {**asdict(outcome), "seconds": round(time.monotonic() - begun, 1)}
        print(f"\n{MARK}{json.dumps([name, row])}", file=sys.stdout, flush=True)
