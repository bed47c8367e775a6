"""Every served family, tiny and random: logits of transformers = logits of Megatron in every layout, and the way back.

HF -> Megatron at TP=1, TP=2 (with and without sequence parallelism) and PP=2 -> HF: every tensor bit-equal.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PretrainedConfig

from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.compat.transformers5 import is_version_5, rope_scaling, rope_theta
from tests.tiny_families import FAMILIES, WINDOW, config, family_model
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
        family_model(folder / "models" / name, name, smollm2, untidy=True)
    generator = torch.Generator().manual_seed(3)
    torch.save([torch.randint(3, 300, (n,), generator=generator) for n in LENGTHS], folder / "ids.pt")
    (folder / "exports").mkdir()
    for processes, layouts in ((2, ("tp2", "tp2-sp", "pp2")), (1, ("tp1", "export"))):
        done = torchrun(processes, "tests/distributed/families_worker.py", str(folder), *layouts)
        assert done.returncode == 0, done.stdout[-4000:]
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path) -> dict[str, list[Tensor]]:
    """transformers' logits of each sample alone. Its model is built of the arguments that the folder was made of, for
    4.57 alone would read the folders of version 5 with a base of 10,000."""
    out = {}
    for name in FAMILIES:
        model = AutoModelForCausalLM.from_config(config(name), dtype=torch.float32).eval()
        missing, unknown = model.load_state_dict(
            load_file(folder / "models" / name / "model.safetensors"), strict=False
        )
        assert not unknown and set(missing) <= {"lm_head.weight"}
        model.tie_weights()
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
    assert_same_meaning(config(name), back)
    assert (back / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    generation = read_json(back / "generation_config.json")
    ends = ["<|im_end|>"] if name == "smollm2" else ["</s>", "<|end|>"]
    stops = AutoTokenizer.from_pretrained(back).convert_tokens_to_ids(ends)
    assert generation["eos_token_id"] == (stops if len(stops) > 1 else stops[0])
    assert generation["do_sample"] is True and "pad_token_id" not in generation
    GenerationConfig.from_pretrained(back).save_pretrained(back / "saved-again")  # transformers refuses a wrong one


def assert_same_meaning(meant: PretrainedConfig, folder: Path) -> None:
    """A folder's config.json, as transformers reads it alone, is the one that was meant, in either dialect."""
    document = read_json(folder / "config.json")
    for left_out in ((), ("rope_parameters",) if not is_version_5() else ("rope_theta", "rope_scaling")):
        other = folder / "-".join(("read", *left_out))
        other.mkdir()
        write_json(other / "config.json", {k: v for k, v in document.items() if k not in left_out})
        found = AutoConfig.from_pretrained(other)
        for meaning in (rope_theta, rope_scaling):
            assert meaning(found) == meaning(meant)
        old, new = meant.to_dict(), found.to_dict()
        for key in old.keys() | new.keys():
            assert key in (*UNIMPORTANT, *ROPE) or old.get(key) == new.get(key), key
