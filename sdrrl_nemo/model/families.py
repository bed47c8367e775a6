"""Which Hugging Face model families are served, how they differ, and why well-known others are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sdrrl_nemo.common.errors import SdrrlError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Family:
    """What a decoder adds to Llama's: RMSNorm, rotary positions, grouped queries, SwiGLU, no biases."""

    qkv_bias: bool = False
    """Biases on the query, key and value projections."""
    proj_bias: bool = False
    """A bias on the output projection of attention."""
    mlp_bias: bool = False
    """Biases on gate, up and down projection."""
    qk_norm: bool = False
    """RMSNorm over each query and key head, before the rotary positions."""


FAMILIES = {
    "llama": Family(),  # Llama 2 and 3.x, SeaLLM, SmolLM2, EuroLLM, Salamandra
    "mistral": Family(),
    "qwen2": Family(qkv_bias=True),  # Qwen2, Qwen2.5, SeaLLMs-v3
    "qwen3": Family(qk_norm=True),
}
"""By ``model_type`` of config.json."""
ATTENTION_BIAS = ("llama", "qwen3")
"""Families that read ``attention_bias``: biases on all four projections."""

_EXPERTS = "mixture-of-experts layers are not served"
_PARALLEL = (
    "attention and feed-forward side by side after one LayerNorm, which the transformer layer of megatron-core 0.15 "
    "has no form of, and scaled logits"
)
REASONS = {
    "gemma": "norms of 1 + weight, GeGLU and scaled embeddings are not served",
    "gemma2": "norms before and after each part, soft-capped attention and logits, and windows in every other layer, "
    "are not served: the transformer layer of megatron-core 0.15 has two norms and one window for all layers",
    "gemma3": "images, and a second rotary base for its sliding-window layers, are not served",
    "gemma3_text": "norms before and after each part, and a second rotary base for its sliding-window layers, are not "
    "served: a GPT of megatron-core 0.15 has one rotary embedding for all layers",
    "cohere": _PARALLEL + ", are not served",
    "cohere2": _PARALLEL + ", and layers without rotary positions, are not served",
    "apertus": "a feed-forward layer without a gate and with xIELU, two trained numbers a layer, is not served",
    "mixtral": _EXPERTS,
    "qwen2_moe": _EXPERTS,
    "qwen3_moe": _EXPERTS,
}
"""Why some well-known families are refused (docs/models.md)."""


def check_kind(kind: Any, where: str) -> None:
    """SdrrlError when ``kind``, the ``model_type`` of the config.json ``where``, is no served family."""
    if not isinstance(kind, str) or kind not in FAMILIES:
        reason = f" ({REASONS[kind]})" if isinstance(kind, str) and kind in REASONS else ""
        raise SdrrlError(f"{where}: model type '{kind}' is not supported{reason}; known: {', '.join(FAMILIES)}")


def family(config: PretrainedConfig) -> Family:
    """Family of a config whose model type is served, with the biases that this model has."""
    found, kind = FAMILIES[config.model_type], config.model_type
    if kind in ATTENTION_BIAS and getattr(config, "attention_bias", False):
        found = replace(found, qkv_bias=True, proj_bias=True)
    if kind == "llama" and getattr(config, "mlp_bias", False):
        found = replace(found, mlp_bias=True)
    return found


def check_window(config: PretrainedConfig, longest: int, where: str) -> None:
    """SdrrlError when a sample of ``longest`` tokens would reach beyond the model's sliding window or its positions.

    Attention here is causal over the whole sample, which is the same function while no sample is longer than the
    window. Beyond ``max_position_embeddings`` a model has never been: its answers there are not its own.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise SdrrlError(
            f"{where}: max_position_embeddings = {positions} is shorter than the longest sample ({longest} tokens); "
            "preprocess again with a packing.seq_length of at most that"
        )
    window = getattr(config, "sliding_window", None)
    if window is not None and longest > window:
        raise SdrrlError(
            f"{where}: sliding_window = {window} is shorter than the longest sequence ({longest} tokens), and "
            f"attention within a window is not supported; use sequences of at most {window} tokens"
        )
