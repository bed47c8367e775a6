"""tools/gpu_check.py --small as a user types it, one part of it: the recipe under torchrun, with what it needs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.launch import ROOT, python


def test_the_recipe_runs_and_agrees_with_the_committed_losses(tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    options = ["--small", "--work", str(tmp_path / "work"), "--output", str(output), "--seconds", "300"]
    done = python("tools/gpu_check.py", *options, "--parts", "smol-small-local")
    assert done.returncode == 0, done.stdout[-4000:]
    text = output.read_text(encoding="utf-8")
    report = json.loads(text)
    assert str(ROOT) not in text and str(tmp_path) not in text
    found = {part["name"]: part for part in report["parts"]}
    assert {name: part["status"] for name, part in found.items()} == {"inputs": "ok", "smol-small-local": "ok"}
    recipe = found["smol-small-local"]
    assert recipe["steps"] == 4
    for what in ("first_loss", "loss", "first_gradient_norm"):
        assert recipe[f"{what}_error"] < recipe[f"{what}_bound"]
    assert recipe["last_loss"] < recipe["first_losses"][0]
    assert recipe["predicted"]["gpu"] == "h100-80g" and recipe["predicted"]["tokens_per_second"] > 0
    started = "python -m torch.distributed.run --standalone --nproc-per-node 1 tools/gpu/with_layers.py local -"
    assert recipe["command"].startswith(f"{started} recipes/sdrrl_pretrain.py --config")
    table = done.stdout.splitlines()
    assert any(line.startswith("smol-small-local ") and f"{recipe['last_loss']:.4f}" in line for line in table)
