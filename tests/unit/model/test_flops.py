"""Operations and parameters against models that are really built, and torch's own operation counter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.cost.flops import ModelShape, six_nd, training_flops
from sdrrl_nemo.cost.gpus import gpu, gpu_of_device

SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def configs() -> list[PretrainedConfig]:
    kinds = (LlamaConfig, Qwen2Config, Qwen3Config)
    return [kind(**SIZES, tie_word_embeddings=tied) for kind in kinds for tied in (False, True)]


def name_of(config: PretrainedConfig) -> str:
    return f"{config.model_type}-{'tied' if config.tie_word_embeddings else 'untied'}"


@pytest.mark.parametrize("config", configs(), ids=name_of)
def test_parameters_are_those_of_the_real_model(config: PretrainedConfig) -> None:
    config.head_dim = SIZES["head_dim"] if config.model_type != "qwen2" else 8
    model = AutoModelForCausalLM.from_config(config)
    assert ModelShape.of(config).parameters() == sum(p.numel() for p in model.parameters())


def test_llama_2_7b_has_its_published_number_of_parameters() -> None:
    shape = ModelShape.of(LlamaConfig(tie_word_embeddings=False))  # transformers' defaults are Llama 2 7B
    assert shape.parameters() == 6_738_415_616


def test_matrix_products_are_those_torch_counts() -> None:
    """torch counts full attention; ours halves it to the causal part, so one token a sample leaves the matrices."""
    config = LlamaConfig(**SIZES, attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(config)
    shape = ModelShape.of(config)
    for length in (1, 17):
        ids = torch.randint(0, 512, (2, length))
        with FlopCounterMode(display=False) as counter:
            model(ids, labels=ids).loss.backward()
        rope = 2 * 2 * length * (shape.head_dim // 2)  # the product that makes the rotary angles, forward only
        counted = counter.get_total_flops() - rope
        full = 4 * 2 * length * length * shape.layers * shape.heads * shape.head_dim * 3
        ours = training_flops(shape, np.asarray([length, length]))
        causal = 4 * 2 * (length * (length + 1) // 2) * shape.layers * shape.heads * shape.head_dim * 3
        assert counted == pytest.approx(ours - causal + full, rel=2e-3)


def test_six_nd_is_close_for_a_large_model_with_short_samples() -> None:
    shape = ModelShape.of(LlamaConfig(tie_word_embeddings=False))
    lengths = np.full(64, 128)
    assert training_flops(shape, lengths) == pytest.approx(six_nd(shape, 64 * 128), rel=0.01)
    frozen = training_flops(shape, lengths, frozen=True)
    assert frozen == pytest.approx(six_nd(shape, 64 * 128, frozen=True), rel=0.01)
    assert frozen == pytest.approx(training_flops(shape, lengths) * 2 / 3, rel=0.01)  # no gradient of the weights


def test_gpus_by_name() -> None:
    assert gpu("A800-80G").bf16_tflops == 312.0
    found = {
        name: gpu_of_device(name) for name in ("NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB")
    }
    assert [g.name for g in found.values() if g] == ["h100-pcie", "h100-80g", "a100-80g"]
    assert gpu_of_device("Intel Xeon") is None
    with pytest.raises(SdrrlError, match="is not one of a100-40g"):
        gpu("tpu")
