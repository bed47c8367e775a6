"""Config files as published: Megatron computes what transformers' own model of the stated meaning computes."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.start import prepare
from sdrrl_nemo.compat.transformers5 import for_both_versions, is_version_5
from tests.unit.model.published_cases import GONE, PUBLISHED, REFUSED, SERVED, SIZES, Case

TOLERANCE = 2e-5
OF_5 = ("rope_parameters",)


def document_of(case: Case) -> dict[str, Any]:
    found = {"model_type": case.family, "hidden_act": "silu", "tie_word_embeddings": False, **SIZES}
    found |= deepcopy(case.keys)  # transformers 5 writes into what it is given
    return {k: v for k, v in found.items() if v != GONE}


def model_of(case: Case) -> PreTrainedModel:
    """transformers' model of what the case means, random; norms and biases too, so that a forgotten one shows."""
    torch.manual_seed(3)
    means = {**SIZES, "tie_word_embeddings": False, "hidden_act": "silu", **deepcopy(case.means)}
    config = CONFIG_MAPPING[case.family](**means)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                p.normal_(0.0, 0.3)
    return model


def folder_of(case: Case, model: PreTrainedModel, folder: Path) -> Path:
    """The weights of ``model`` under the case's own config.json, which transformers has no hand in."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(document_of(case)))
    tied = bool(model.config.tie_word_embeddings)
    state = {k: v.contiguous() for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def rotary_of(model: PreTrainedModel) -> tuple[torch.Tensor, float]:
    module: Any = model.model.rotary_emb
    return module.inv_freq.clone(), float(module.attention_scaling)


@pytest.mark.parametrize("case", [*SERVED, *PUBLISHED], ids=lambda c: c.name)
def test_megatron_computes_what_the_file_means(case: Case, tmp_path: Path, alone: None) -> None:
    prepare()
    from sdrrl_nemo.model import standalone
    from sdrrl_nemo.model.hf_bridge import load_hf_weights
    from sdrrl_nemo.model.provider import gpt_config, read_hf_config
    from sdrrl_nemo.model.published.transformers_reference import check_rotary, frequencies, reference
    from sdrrl_nemo.model.published.weight_files import check_weights

    theirs = model_of(case)
    folder = folder_of(case, theirs, tmp_path / "model")
    assert check_weights(folder).keys() == {k for k, _ in theirs.named_parameters()}
    hf = read_hf_config(folder)
    check_rotary(folder, hf)
    ours, factor = frequencies(hf)
    expected, scaling = rotary_of(theirs)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)
    assert factor == pytest.approx(scaling, rel=1e-6)
    torch.testing.assert_close(
        rotary_of(AutoModelForCausalLM.from_config(reference(folder).config))[0], expected, rtol=1e-6, atol=0
    )

    torch.distributed.barrier()
    torch.random.manual_seed(0)
    from megatron.core import tensor_parallel

    tensor_parallel.model_parallel_cuda_manual_seed(0)
    config = gpt_config(hf, seq_length=64)
    model = standalone.build(config)
    load_hf_weights(model, folder, config, 0, 1)
    ids = torch.randint(0, SIZES["vocab_size"], (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        reference_logits = theirs(ids).logits
    assert reference_logits.std() > 0.1, "logits this small would hide an error"
    logits = standalone.logits(model, ids)[..., : SIZES["vocab_size"]]
    assert float((logits - reference_logits).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("case", [*SERVED, *PUBLISHED], ids=lambda c: c.name)
def test_a_folder_written_for_both_versions_means_the_same_to_this_one(case: Case, tmp_path: Path) -> None:
    """Read as other programs read it: by transformers alone, and with the names of either version taken out."""
    theirs = model_of(case)
    folder = folder_of(case, theirs, tmp_path / "model")
    for_both_versions(folder)
    written = json.loads((folder / "config.json").read_text())
    spoken = [written] if is_version_5() else [written, {k: v for k, v in written.items() if k not in OF_5}]
    if is_version_5():
        spoken.append({k: v for k, v in written.items() if k not in ("rope_theta", "rope_scaling")})
    for number, document in enumerate(spoken):
        other = shutil.copytree(folder, tmp_path / f"other-{number}")
        (other / "config.json").write_text(json.dumps(document))
        back = AutoModelForCausalLM.from_pretrained(other, dtype=torch.float32).eval()
        for ours, expected in zip(rotary_of(back), rotary_of(theirs), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)
        ids = torch.arange(20)[None]
        with torch.no_grad():
            assert torch.equal(back(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.name)
def test_what_is_not_served_is_named(case: Case, tmp_path: Path) -> None:
    from sdrrl_nemo.model.provider import read_hf_config
    from sdrrl_nemo.model.published.weight_files import check_weights

    (tmp_path / "config.json").write_text(json.dumps(document_of(case)))
    for check in (read_hf_config, check_weights):  # with transformers and without
        with pytest.raises(SdrrlError, match=r"^[^\n]*$") as e:
            check(tmp_path)
        assert str(e.value).startswith(f"{tmp_path}/config.json: ") and case.refused in str(e.value)


def test_a_dialect_that_transformers_does_not_read_is_said(tmp_path: Path) -> None:
    """Without a translation 4.57 computes with a base of 10,000: that is what would be compared with."""
    from sdrrl_nemo.model.published.transformers_reference import reference

    case = next(c for c in SERVED if c.name == "base of 5")
    (tmp_path / "config.json").write_text(json.dumps(document_of(case)))
    found = reference(tmp_path)
    if is_version_5():
        assert not found.note
    else:
        assert AutoConfig.from_pretrained(tmp_path).rope_theta == 1e4
        assert "does not understand rope_parameters" in found.note
    (tmp_path / "config.json").write_text(json.dumps(document_of(SERVED[0])))
    assert not reference(tmp_path).note
