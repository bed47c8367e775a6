"""Which Hugging Face model families are served, how they differ, and which fields of a config are refused.

A field that would change what the model computes and that Megatron is not told about is an error, never ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.transformers5 import partial_rotary_factor, rope_scaling


@dataclass(frozen=True)
class Family:
    """What a decoder adds to Llama's: RMSNorm, rotary positions, grouped queries, SwiGLU, no biases."""

    qkv_bias: bool = False
    """Biases on the query, key and value projections; none on the output projection."""
    qk_norm: bool = False
    """RMSNorm over each query and key head, before the rotary positions."""


FAMILIES = {
    "llama": Family(),  # Llama 2 and 3.x, SeaLLM, SmolLM2
    "mistral": Family(),
    "qwen2": Family(qkv_bias=True),  # Qwen2, Qwen2.5
    "qwen3": Family(qk_norm=True),
}
"""By ``model_type`` of config.json."""

_EXPERTS = "mixture-of-experts layers are not served"
REASONS = {
    "gemma2": "soft-capped attention and final logits, and sliding windows in every other layer, are not served",
    "gemma3": "images, and a second rotary base for its sliding-window layers, are not served",
    "gemma3_text": "a second rotary base for its sliding-window layers is not served",
    "mixtral": _EXPERTS,
    "qwen2_moe": _EXPERTS,
    "qwen3_moe": _EXPERTS,
}
"""Why some well-known families are refused (docs/models.md)."""

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Rotary scalings whose frequencies are constants; ``dynamic`` and ``longrope`` change with the sequence's length."""


def family(config: PretrainedConfig, where: str) -> Family:
    """Family of a config; SdrrlError naming the model type or the field that is not served.

    Args:
        where: the config.json, named in the error.
    """
    kind = config.model_type
    if kind not in FAMILIES:
        reason = f" ({REASONS[kind]})" if kind in REASONS else ""
        raise SdrrlError(f"{where}: model type '{kind}' is not supported{reason}; known: {', '.join(FAMILIES)}")
    for field, (value, accepted) in _fields(config).items():
        if value not in accepted:
            raise SdrrlError(f"{where}: {field} = {value!r} is not supported, only {accepted[0]!r} is")
    rotary(config, where)
    return FAMILIES[kind]


def _fields(config: PretrainedConfig) -> dict[str, tuple[object, tuple[object, ...]]]:
    """Fields with one accepted meaning: (value, the values that have it)."""
    return {
        "hidden_act": (config.hidden_act, ("silu", "swish")),
        "attention_bias": (getattr(config, "attention_bias", False), (False, None)),
        "mlp_bias": (getattr(config, "mlp_bias", False), (False, None)),
        "attention_dropout": (config.attention_dropout, (0.0, None)),
        "partial_rotary_factor": (partial_rotary_factor(config), (1.0, None)),
        "quantization_config": (getattr(config, "quantization_config", None), (None,)),
    }


def rotary(config: PretrainedConfig, where: str) -> tuple[Tensor, float] | None:
    """(inverse frequencies fp32 [head size / 2], factor on cosines and sines) of a scaled rotary embedding.

    transformers computes them, so they are the ones the model is served with. None: plain rotary positions.
    """
    kind = rope_scaling(config).get("rope_type", "default")
    if kind not in ROPE_TYPES:
        raise SdrrlError(f"{where}: rope_scaling of type '{kind}' is not supported; known: {', '.join(ROPE_TYPES)}")
    if kind == "default":
        return None
    try:
        frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    except (KeyError, TypeError) as e:
        raise SdrrlError(f"{where}: rope_scaling of type '{kind}' lacks or misuses the key {e}") from None
    return frequencies, float(factor)


def check_window(config: PretrainedConfig, longest: int, where: str) -> None:
    """SdrrlError when a sample of ``longest`` tokens would reach beyond the model's sliding window.

    Attention here is causal over the whole sample, which is the same function while no sample is longer than the
    window.
    """
    window = getattr(config, "sliding_window", None)
    if window is not None and longest > window:
        raise SdrrlError(
            f"{where}: sliding_window = {window} is shorter than the longest sequence ({longest} tokens), and "
            f"attention within a window is not supported; use sequences of at most {window} tokens"
        )
