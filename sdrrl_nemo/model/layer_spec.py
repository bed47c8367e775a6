"""Which layers a Megatron GPT is made of: Transformer Engine where it is installed on a GPU, else the local spec."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer.spec_utils import ModuleSpec

from sdrrl_nemo.model.attention import SDPAttention


def has_transformer_engine() -> bool:
    """True when TE can be used: installed, and a GPU is present."""
    return torch.cuda.is_available() and importlib.util.find_spec("transformer_engine") is not None


def layer_spec(config: Any, vp_stage: int | None = None) -> ModuleSpec:
    """Spec of one decoder layer for a NeMo ``GPTConfig``."""
    if has_transformer_engine():
        return get_gpt_layer_with_transformer_engine_spec(qk_layernorm=config.qk_layernorm)
    spec = get_gpt_layer_local_spec(normalization=config.normalization, qk_layernorm=config.qk_layernorm)
    spec.submodules.self_attention.submodules.core_attention = SDPAttention
    return spec
