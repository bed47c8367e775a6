"""Every served family, tiny and random: logits of transformers = logits of Megatron in every layout, and the way back.

HF -> Megatron at TP=1, TP=2 (with and without sequence parallelism) and PP=2 -> HF: every tensor bit-equal.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from sdrrl_nemo.compat.transformers5 import rope_scaling, rope_theta
from tests.tiny_families import FAMILIES, WINDOW, family_model
from tests.warm import torchrun

LENGTHS = (WINDOW, 17, 40, 7)
"""The longest sample is as long as the sliding window of Mistral's config: the last length served exactly."""
TOLERANCE = 2e-5
CHECKPOINTS = ("tp1", "tp2", "pp2")
LAYOUTS = (*CHECKPOINTS, "tp2-sp")
pytestmark = pytest.mark.slow  # minutes on two cores; docs/results/families.json
UNIMPORTANT = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures")
ROPE = ("rope_parameters", "rope_scaling", "rope_theta")
"""Compared by what they mean: an export has the names of both versions of transformers."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    """Models, samples, and what the workers made of them: two processes once, one process once."""
    folder = tmp_path_factory.mktemp("families")
    for name in FAMILIES:
        family_model(folder / "models" / name, name, smollm2)
    generator = torch.Generator().manual_seed(3)
    torch.save([torch.randint(3, 300, (n,), generator=generator) for n in LENGTHS], folder / "ids.pt")
    (folder / "exports").mkdir()
    for processes, layouts in ((2, ("tp2", "tp2-sp", "pp2")), (1, ("tp1", "export"))):
        done = torchrun(processes, "tests/distributed/families_worker.py", str(folder), *layouts)
        assert done.returncode == 0, done.stdout[-4000:]
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path) -> dict[str, list[Tensor]]:
    """transformers' logits of each sample alone."""
    out = {}
    for name in FAMILIES:
        model = AutoModelForCausalLM.from_pretrained(folder / "models" / name, dtype=torch.float32).eval()
        with torch.no_grad():
            out[name] = [model(ids[None]).logits[0] for ids in torch.load(folder / "ids.pt")]
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_logits(name: str, layout: str, folder: Path, theirs: dict[str, list[Tensor]]) -> None:
    for form, logits in zip(("padded", "packed"), torch.load(folder / f"{name}-{layout}.pt"), strict=True):
        for i, (ours, reference) in enumerate(zip(logits, theirs[name], strict=True)):
            vocabulary = reference.shape[-1]
            assert reference.std() > 0.1, "logits this small would hide an error"
            worst = float((ours[:, :vocabulary] - reference).abs().max())
            assert worst <= TOLERANCE, (form, i, worst)


@pytest.mark.parametrize("layout", CHECKPOINTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_round_trip_is_exact(name: str, layout: str, folder: Path) -> None:
    base, back = folder / "models" / name, folder / "exports" / f"{name}-{layout}"
    before, after = load_file(base / "model.safetensors"), load_file(back / "model.safetensors")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), key
    configs = [AutoConfig.from_pretrained(p) for p in (base, back)]
    for meaning in (rope_theta, rope_scaling):
        assert meaning(configs[0]) == meaning(configs[1])
    old, new = (c.to_dict() for c in configs)
    for key in old.keys() | new.keys():
        assert key in (*UNIMPORTANT, *ROPE) or old[key] == new[key], key
    assert (back / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
