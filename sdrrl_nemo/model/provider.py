"""Hugging Face config -> NeMo/Megatron model configuration, with the checks that must fail before training starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nemo.collections import llm
from transformers import AutoConfig, PretrainedConfig

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.model.layer_spec import has_transformer_engine, layer_spec

SUPPORTED = ("llama",)


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
    on_model_built: Callable[[Any], None] | None = None

    def configure_model(
        self, tokenizer: Any, pre_process: Any = None, post_process: Any = None, vp_stage: int | None = None
    ) -> Any:
        """Build this rank's part of the model, then run the hook (weight loading, loss)."""
        model = super().configure_model(tokenizer, pre_process, post_process, vp_stage=vp_stage)
        if self.on_model_built is not None:
            self.on_model_built(model)
        return model


def read_hf_config(folder: str | Path) -> PretrainedConfig:
    """Config of an HF folder; SdrrlError when the folder is missing or of a family that is not served."""
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise SdrrlError(f"{path}: no Hugging Face model here (config.json is missing); see tools/import_gguf.py")
    config = AutoConfig.from_pretrained(path)
    if config.model_type not in SUPPORTED:
        raise SdrrlError(f"{path}: model type '{config.model_type}' is not supported; known: {', '.join(SUPPORTED)}")
    if getattr(config, "rope_scaling", None):
        raise SdrrlError(f"{path}/config.json: rope_scaling is not supported yet")
    if config.attention_bias or config.mlp_bias:
        raise SdrrlError(f"{path}/config.json: attention_bias / mlp_bias are not supported yet")
    return config


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
    hf: PretrainedConfig, *, seq_length: int, tp: int = 1, pp: int = 1, pad_heads_to: int = 1, where: str = "model"
) -> SdrrlGPTConfig:
    """Megatron configuration of an HF Llama-family config.

    Args:
        seq_length: tokens of one row of a micro-batch.
        pad_heads_to: key/value heads are padded with zero heads to a multiple of this (1: no padding).
        where: named in errors (the configuration file).
    """
    heads, groups = padded_heads(hf, pad_heads_to)
    check_parallelism(hf, heads, groups, tp, pp, where)
    head_dim = getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads
    fused = has_transformer_engine()
    return SdrrlGPTConfig(
        num_layers=hf.num_hidden_layers,
        hidden_size=hf.hidden_size,
        num_attention_heads=heads,
        num_query_groups=groups,
        kv_channels=head_dim,
        ffn_hidden_size=hf.intermediate_size,
        layernorm_epsilon=hf.rms_norm_eps,
        init_method_std=hf.initializer_range,
        rotary_base=int(hf.rope_theta),
        share_embeddings_and_output_weights=bool(hf.tie_word_embeddings),
        seq_length=seq_length,
        vocab_size=math.ceil(hf.vocab_size / tp) * tp,
        true_num_attention_heads=hf.num_attention_heads,
        true_num_query_groups=hf.num_key_value_heads,
        true_vocab_size=hf.vocab_size,
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
        bias_activation_fusion=fused,
        batch_p2p_comm=torch.cuda.is_available(),
    )
