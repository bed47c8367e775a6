"""Hugging Face config -> NeMo/Megatron model configuration, with the checks that must fail before training starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nemo.collections import llm
from transformers import PretrainedConfig

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.megatron import replace_inverse_frequencies
from sdrrl_nemo.compat.transformers5 import read_config, rope_theta
from sdrrl_nemo.cost.flops import padded_vocabulary
from sdrrl_nemo.model.families import family, rotary
from sdrrl_nemo.model.layer_spec import layer_spec

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "vocab_size",
)
"""Fields of config.json without which there is no model."""


@dataclass
class SdrrlGPTConfig(llm.LlamaConfig):
    """NeMo's Llama configuration plus the hooks of this project.

    ``true_*`` are the sizes of the Hugging Face model. Megatron's own sizes can be larger: attention heads are
    padded with zero heads so that tensor parallelism divides them, vocabulary rows so that it divides them too.
    A zero head gets a zero gradient (its value and output projections are zero), so it stays zero and the function
    that is trained is exactly the original one.
    """

    true_num_attention_heads: int = 0
    true_num_query_groups: int = 0
    true_vocab_size: int = 0
    layers: str = "local"
    """``te`` or ``local`` (layer_spec.py)."""
    inverse_frequencies: list[float] | None = None
    """Of the rotary embedding, where they are scaled (Llama 3.x and others); megatron-core's own scaling knows only
    one of Llama 3's four factors."""
    on_model_built: Callable[[Any], None] | None = None

    def configure_model(
        self, tokenizer: Any, pre_process: Any = None, post_process: Any = None, vp_stage: int | None = None
    ) -> Any:
        """Build this rank's part of the model, then run the hook (weight loading, loss)."""
        model = super().configure_model(tokenizer, pre_process, post_process, vp_stage=vp_stage)
        if self.inverse_frequencies is not None:
            replace_inverse_frequencies(model, self.inverse_frequencies)
        if self.on_model_built is not None:
            self.on_model_built(model)
        return model


def read_hf_config(folder: str | Path) -> PretrainedConfig:
    """Config of an HF folder; SdrrlError when the folder is missing, or the family or a field of it is not served."""
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise SdrrlError(f"{path}: no Hugging Face model here (config.json is missing); see tools/import_gguf.py")
    try:
        config = read_config(path)
    except Exception as e:  # whatever a field of another type leads to inside transformers
        reason = str(e).strip().partition("\n")[0] or type(e).__name__
        raise SdrrlError(f"{path}/config.json: transformers cannot read it ({reason})") from None
    try:
        family(config, f"{path}/config.json")
    except (TypeError, ValueError, AttributeError, ArithmeticError, KeyError, RuntimeError) as e:
        raise SdrrlError(f"{path}/config.json: a field has a value of the wrong kind ({e})") from None
    _check_sizes(config, f"{path}/config.json")
    return config


def _check_sizes(hf: PretrainedConfig, where: str) -> None:
    """SdrrlError for a size that is no number above 0."""
    for name in SIZES:
        value = getattr(hf, name, None)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SdrrlError(f"{where}: {name} must be a whole number above 0, is {value!r}")


def head_size(hf: PretrainedConfig) -> int:
    """Size of one attention head; not every config states it."""
    return int(getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads)


def padded_heads(hf: PretrainedConfig, multiple: int) -> tuple[int, int]:
    """(attention heads, query groups) after adding whole zero groups until ``multiple`` divides the groups."""
    groups = math.ceil(hf.num_key_value_heads / multiple) * multiple
    return groups * (hf.num_attention_heads // hf.num_key_value_heads), groups


def check_parallelism(hf: PretrainedConfig, heads: int, groups: int, tp: int, pp: int, where: str) -> None:
    """SdrrlError when TP does not divide heads, groups or feed-forward size, or PP does not divide the layers."""
    for what, value in (
        ("attention heads", heads),
        ("key/value heads", groups),
        ("feed-forward size", hf.intermediate_size),
    ):
        if value % tp:
            hint = f"; set model.pad_heads_to={tp} to add zero heads" if "heads" in what else ""
            raise SdrrlError(f"{where}: tensor_model_parallel_size={tp} does not divide the {value} {what}{hint}")
    if hf.num_hidden_layers % pp:
        raise SdrrlError(
            f"{where}: pipeline_model_parallel_size={pp} does not divide the {hf.num_hidden_layers} layers"
        )


def gpt_config(
    hf: PretrainedConfig,
    *,
    seq_length: int,
    tp: int = 1,
    pp: int = 1,
    pad_heads_to: int = 1,
    layers: str = "local",
    where: str = "model",
) -> SdrrlGPTConfig:
    """Megatron configuration of an HF config of one of the families in ``families.py``.

    Args:
        seq_length: tokens of one row of a micro-batch.
        pad_heads_to: key/value heads are padded with zero heads to a multiple of this (1: no padding).
        layers: ``te`` (Transformer Engine's) or ``local``.
        where: named in errors (the configuration file).
    """
    heads, groups = padded_heads(hf, pad_heads_to)
    check_parallelism(hf, heads, groups, tp, pp, where)
    kind = family(hf, where)
    scaled = rotary(hf, where)
    d, base = head_size(hf), rope_theta(hf)
    fused = layers == "te"
    return SdrrlGPTConfig(
        num_layers=hf.num_hidden_layers,
        hidden_size=hf.hidden_size,
        num_attention_heads=heads,
        num_query_groups=groups,
        kv_channels=d,
        add_qkv_bias=kind.qkv_bias,
        qk_layernorm=kind.qk_norm,
        ffn_hidden_size=hf.intermediate_size,
        layernorm_epsilon=hf.rms_norm_eps,
        init_method_std=hf.initializer_range,
        rotary_base=int(base) if base == int(base) else base,
        inverse_frequencies=scaled[0].tolist() if scaled else None,
        # a factor on the cosines and sines of queries and keys is its square on the attention scores
        softmax_scale=d**-0.5 * scaled[1] ** 2 if scaled and scaled[1] != 1.0 else None,
        share_embeddings_and_output_weights=bool(hf.tie_word_embeddings),
        seq_length=seq_length,
        vocab_size=padded_vocabulary(hf.vocab_size, tp),
        true_num_attention_heads=hf.num_attention_heads,
        true_num_query_groups=hf.num_key_value_heads,
        true_vocab_size=hf.vocab_size,
        layers=layers,
        transformer_layer_spec=layer_spec,
        # the loss sums over micro-batches and ranks itself: nothing may be divided by tokens or micro-batches
        calculate_per_token_loss=True,
        cross_entropy_loss_fusion=False,
        use_cpu_initialization=not torch.cuda.is_available(),
        gradient_accumulation_fusion=False,
        persist_layer_norm=fused,
        bias_dropout_fusion=fused,
        masked_softmax_fusion=fused,
        apply_rope_fusion=fused,
        bias_activation_fusion=fused or not torch.cuda.is_available(),
        batch_p2p_comm=torch.cuda.is_available(),
    )
