"""Sizes by name against NeMo's own configurations; the planner's divisibility rule against the recipe's."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.plan.layout import Layout, misfit, padded
from sdrrl_nemo.plan.models import hf_config, known_models

NEMO = {
    "llama-2-7b": "Llama2Config7B",
    "llama-2-13b": "Llama2Config13B",
    "llama-3.1-8b": "Llama31Config8B",
    "mistral-7b": "MistralConfig7B",
    "qwen2.5-7b": "Qwen25Config7B",
}


@pytest.mark.parametrize("name", NEMO)
def test_sizes_are_nemos(name: str) -> None:
    from nemo.collections import llm

    theirs = getattr(llm, NEMO[name])(apply_rope_fusion=False)  # needs Transformer Engine
    ours = ModelShape.of(hf_config(name, "")[0])
    assert ours.layers == theirs.num_layers
    assert ours.hidden == theirs.hidden_size
    assert ours.feed_forward == theirs.ffn_hidden_size
    assert (ours.heads, ours.groups) == (theirs.num_attention_heads, theirs.num_query_groups)
    assert ours.tied == theirs.share_embeddings_and_output_weights
    assert ours.qkv_bias == theirs.add_qkv_bias


@pytest.mark.parametrize("name", known_models())
def test_every_known_model_is_served(name: str) -> None:
    config, source = hf_config("anywhere", name)
    billions = ModelShape.of(config).parameters() / 1e9
    assert 6 < billions < 14
    assert source.startswith(name)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("work/models/Llama-2-7b-chat-hf", "llama-2-7b"),
        ("work/models/SeaLLM-7B-v2", "seallm-7b-v2"),
        ("work/models/SeaLLM-7B-v1", "seallm-7b"),
        ("/data/Qwen2.5-7B-Instruct/", "qwen2.5-7b"),
    ],
)
def test_a_folder_that_is_not_there_yet(folder: str, name: str) -> None:
    assert hf_config(folder)[1].startswith(f"{name} (")


def test_config_of_a_folder_or_a_file(tmp_path: Path) -> None:
    hf_config("x", "qwen2.5-7b")[0].save_pretrained(tmp_path)
    by_folder, by_file = (ModelShape.of(hf_config("x", str(p))[0]) for p in (tmp_path, tmp_path / "config.json"))
    assert by_folder == by_file == ModelShape.of(hf_config("x", "qwen2.5-7b")[0])
    (tmp_path / "config.json").write_text('{"model_type": "mixtral"}')
    with pytest.raises(SdrrlError, match="model type 'mixtral' is not supported"):
        hf_config("x", str(tmp_path))


def test_what_fits_is_what_the_recipe_accepts() -> None:
    from sdrrl_nemo.model.provider import check_parallelism, padded_heads

    for name, tp, pp, multiple in itertools.product(
        ("llama-2-7b", "qwen2.5-7b"), (1, 2, 3, 4, 8), (1, 2, 3, 7), (1, 8)
    ):
        hf, _ = hf_config(name)
        heads, groups = padded_heads(hf, multiple)
        try:
            check_parallelism(hf, heads, groups, tp, pp, "x")
            refused = False
        except SdrrlError:
            refused = True
        ours = misfit(padded(ModelShape.of(hf), multiple, tp), Layout(tp=tp, pp=pp))
        assert (ours is not None) == refused, (name, tp, pp, multiple, ours)
