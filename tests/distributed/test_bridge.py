"""HF -> Megatron -> HF: every tensor bit-equal, at TP=1 and TP=2, with and without head padding, tied or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.tiny import tiny_model
from tests.warm import python, torchrun


def _round_trip(model: Path, folder: Path, tp: int, pp: int, pad: int) -> Path:
    checkpoint, back = folder / f"ckpt-{tp}-{pp}-{pad}", folder / f"hf-{tp}-{pp}-{pad}"
    sizes = ["--tp", str(tp), "--pp", str(pp), "--pad-heads-to", str(pad)]
    args = ["--model", str(model), "--output", str(checkpoint), *sizes]
    done = torchrun(tp * pp, "tools/import_hf.py", *args)
    assert done.returncode == 0, done.stdout[-4000:]
    done = python("tools/export_hf.py", "--checkpoint", str(checkpoint), "--base", str(model), "--output", str(back))
    assert done.returncode == 0, done.stdout[-4000:]
    assert "max abs diff of logits" in done.stdout
    return back


def test_an_export_is_recognised_and_nothing_is_overwritten(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", layers=2)
    back = _round_trip(model, tmp_path, 1, 1, 1)
    args = ["--checkpoint", str(tmp_path / "ckpt-1-1-1"), "--base", str(model), "--output"]
    again = python("tools/export_hf.py", *args, str(back))
    assert again.returncode == 0
    assert "already holds the export" in again.stdout
    over = python("tools/export_hf.py", *args, str(model))
    assert over.returncode == 2
    assert "exists already and is no export of" in over.stdout
    assert "Traceback" not in over.stdout


@pytest.mark.parametrize(
    ("tied", "tp", "pp", "pad"), [(True, 1, 1, 1), (True, 2, 1, 2), (False, 2, 1, 4), (True, 1, 2, 1)]
)
def test_round_trip_is_exact(tied: bool, tp: int, pp: int, pad: int, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", tied=tied)
    back = _round_trip(model, tmp_path, tp, pp, pad)
    before, after = load_file(model / "model.safetensors"), load_file(back / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype == torch.float32
        assert torch.equal(tensor, after[name]), name
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        a = AutoModelForCausalLM.from_pretrained(model)(ids).logits
        b = AutoModelForCausalLM.from_pretrained(back)(ids).logits
    assert torch.equal(a, b)
    assert (back / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
