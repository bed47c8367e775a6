"""fp8 on a card that has it: the recipe's first losses lie near those of a bf16 run, and recomputation changes no bit.

Skipped without Transformer Engine, a GPU of compute capability 8.9 or higher. No card has run it yet.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import metric_rows
from tools.gpu import training_runs
from tools.gpu.child import NO_TF32, Child
from tools.gpu.layer_kinds import KINDS
from tools.gpu.made_up import inputs
from tools.gpu.shapes import TEST

KIND = next(kind for kind in KINDS if kind.name == "te")
CARD = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not CARD or importlib.util.find_spec("transformer_engine") is None,
        reason="needs Transformer Engine and a GPU with products in fp8 (Ada, Hopper or later)",
    ),
]
NEAR = 0.05
"""Of a loss, relative: e4m3 has three bits behind the point."""
LIMIT = 240.0


def _losses(folder: Path, name: str, megatron: dict[str, Any]) -> list[float]:
    shape = replace(TEST, precision="bf16")
    model, data = inputs(shape, folder)
    content = training_runs.settings(shape, model, data, folder / name, threads=0)
    content["megatron"] = megatron
    command = training_runs.recipe_command(KIND, training_runs.write_settings(folder / f"{name}.yaml", content))
    Child.start(command, folder / f"{name}.log", 1, NO_TF32).finish(LIMIT)
    return [row["loss"] for row in metric_rows(folder / name)]


@pytest.mark.parametrize("recipe", ["delayed", "tensorwise"])
def test_losses_in_fp8_are_near_those_in_bf16(tmp_path: Path, recipe: str) -> None:
    plain = _losses(tmp_path, "bf16", {})
    fp8 = _losses(tmp_path, recipe, {"fp8": "hybrid", "fp8_recipe": recipe})
    assert fp8 == pytest.approx(plain, rel=NEAR)
    assert fp8 != plain, "nothing ran in fp8"
