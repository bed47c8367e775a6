"""tools/gpu_check.py --small as a user types it, two parts of it: the recipe under torchrun, and transformers' loop."""

from __future__ import annotations

import json
from pathlib import Path

from tests.launch import ROOT, python


def test_two_parts_run_and_agree_with_the_committed_losses(tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    parts = ["smol-small-local", "slice-small-plain"]
    options = ["--small", "--work", str(tmp_path / "work"), "--output", str(output), "--seconds", "300"]
    done = python("tools/gpu_check.py", *options, "--parts", *parts)
    assert done.returncode == 0, done.stdout[-4000:]
    text = output.read_text(encoding="utf-8")
    report = json.loads(text)
    assert str(ROOT) not in text and str(tmp_path) not in text
    found = {part["name"]: part for part in report["parts"]}
    assert {name: part["status"] for name, part in found.items()} == dict.fromkeys(("inputs", *parts), "ok")
    recipe, plain = (found[name] for name in parts)
    assert recipe["steps"] == plain["steps"] == 4
    assert recipe["loss_error"] < recipe["loss_bound"] and plain["loss_error"] < plain["loss_bound"]
    assert recipe["last_loss"] < recipe["first_losses"][0]
    assert recipe["predicted"]["gpu"] == "h100-80g" and recipe["predicted"]["tokens_per_second"] > 0
    started = "python -m torch.distributed.run --standalone --nproc-per-node 1 tools/gpu/with_layers.py local -"
    assert recipe["command"].startswith(f"{started} recipes/sdrrl_pretrain.py --config")
    table = done.stdout.splitlines()
    assert any(line.startswith("smol-small-local ") and f"{recipe['last_loss']:.4f}" in line for line in table)
