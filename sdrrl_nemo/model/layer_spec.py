"""Which layers a Megatron GPT is made of: Transformer Engine where it is installed on a GPU, else the local spec."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build

from sdrrl_nemo.model.attention import SDPAttention
from sdrrl_nemo.model.norm import RMSNorm


def has_transformer_engine() -> bool:
    """True when TE can be used: installed, and a GPU is present."""
    return torch.cuda.is_available() and importlib.util.find_spec("transformer_engine") is not None


def chosen_layers(layers: str, precision: str, packed: bool) -> str:
    """``te`` or ``local`` for ``model.layers`` (train/config.py refuses what goes together with neither).

    ``auto`` takes Transformer Engine's where they can run: its attention over packed rows knows half precision only.
    """
    if layers != "auto":
        return layers
    return "te" if has_transformer_engine() and not (precision == "fp32" and packed) else "local"


class ColumnParallelWithoutBias(ColumnParallelLinear):  # type: ignore[misc]
    """A projection that has none in a model whose other projections have biases."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "bias": False})


class RowParallelWithoutBias(RowParallelLinear):  # type: ignore[misc]
    """The same for a projection split along its input."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "bias": False})


def layer_spec(config: Any, vp_stage: int | None = None) -> ModuleSpec | TransformerBlockSubmodules:
    """Spec of the decoder layers (of one pipeline chunk) for a ``SdrrlGPTConfig``."""
    if config.layers == "te":
        return get_gpt_layer_with_transformer_engine_spec(qk_layernorm=config.qk_layernorm)
    spec = get_gpt_layer_local_spec(normalization=config.normalization, qk_layernorm=config.qk_layernorm)
    layer = spec.submodules
    layer.input_layernorm = layer.pre_mlp_layernorm = RMSNorm
    layer.self_attention.submodules.core_attention = SDPAttention
    if config.qk_layernorm:
        layer.self_attention.submodules.q_layernorm = layer.self_attention.submodules.k_layernorm = RMSNorm
    if config.add_bias_linear and not config.add_qkv_bias:
        layer.self_attention.submodules.linear_qkv = ColumnParallelWithoutBias
    if config.add_bias_linear and not config.proj_bias:
        layer.self_attention.submodules.linear_proj = RowParallelWithoutBias
    if config.add_bias_linear and not config.mlp_bias:
        layer.mlp.submodules.linear_fc1 = ColumnParallelWithoutBias
        layer.mlp.submodules.linear_fc2 = RowParallelWithoutBias
    layers = [spec] * get_num_layers_to_build(config, vp_stage)
    return TransformerBlockSubmodules(layer_specs=layers, layer_norm=RMSNorm)
