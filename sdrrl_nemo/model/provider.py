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
from sdrrl_nemo.common.fileio import read_json_object
from sdrrl_nemo.compat.megatron import replace_inverse_frequencies
from sdrrl_nemo.compat.transformers5 import read_config, rope_scaling, rope_theta
from sdrrl_nemo.cost.flops import padded_vocabulary
from sdrrl_nemo.model.families import check_kind, family
from sdrrl_nemo.model.layer_spec import layer_spec
from sdrrl_nemo.model.published.config_keys import check_keys
from sdrrl_nemo.model.published.transformers_reference import frequencies, head_size


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
    packed_attention: str = "sdpa"
    """Of the local layers: one of ``attention.KERNELS``."""
    proj_bias: bool = False
    """Bias on attention's output projection; Megatron's ``add_bias_linear`` knows only all biases or none."""
    mlp_bias: bool = False
    """Biases on gate, up and down projection."""
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
    """Config of an HF folder; SdrrlError when the folder is missing, or the family or a key of it is not served."""
    path = Path(folder)
    where = f"{path}/config.json"
    if not (path / "config.json").is_file():
        raise SdrrlError(f"{path}: no Hugging Face model here (config.json is missing); see tools/import_gguf.py")
    document = read_json_object(where)
    check_kind(document.get("model_type"), where)
    check_keys(document, where)
    try:
        config = read_config(path)
        frequencies(config)
    except SdrrlError:
        raise
    except Exception as e:  # whatever a field of another type leads to inside transformers
        reason = str(e).strip().partition("\n")[0] or type(e).__name__
        raise SdrrlError(f"{where}: transformers cannot read it ({reason})") from None
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
    hf: PretrainedConfig,
    *,
    seq_length: int,
    tp: int = 1,
    pp: int = 1,
    pad_heads_to: int = 1,
    layers: str = "local",
    attention: str = "sdpa",
    where: str = "model",
) -> SdrrlGPTConfig:
    """Megatron configuration of an HF config of one of the families in ``families.py``.

    Args:
        seq_length: tokens of one row of a micro-batch.
        pad_heads_to: key/value heads are padded with zero heads to a multiple of this (1: no padding).
        layers: ``te`` (Transformer Engine's) or ``local``.
        attention: of local layers over packed rows, one of ``attention.KERNELS``.
        where: named in errors (the configuration file).
    """
    heads, groups = padded_heads(hf, pad_heads_to)
    check_parallelism(hf, heads, groups, tp, pp, where)
    kind = family(hf)
    inverse, factor = frequencies(hf)
    d, base = head_size(hf), rope_theta(hf)
    fused = layers == "te"
    if fused and kind.proj_bias != kind.mlp_bias:
        raise SdrrlError(
            f"{where}: Transformer Engine's layers have biases on all projections or none, this model on attention's "
            "or the feed-forward layer's alone; set model.layers=local"
        )
    return SdrrlGPTConfig(
        num_layers=hf.num_hidden_layers,
        hidden_size=hf.hidden_size,
        num_attention_heads=heads,
        num_query_groups=groups,
        kv_channels=d,
        add_qkv_bias=kind.qkv_bias,
        add_bias_linear=kind.proj_bias or kind.mlp_bias,
        proj_bias=kind.proj_bias,
        mlp_bias=kind.mlp_bias,
        qk_layernorm=kind.qk_norm,
        ffn_hidden_size=hf.intermediate_size,
        layernorm_epsilon=hf.rms_norm_eps,
        init_method_std=hf.initializer_range,
        rotary_base=int(base) if base == int(base) else base,
        inverse_frequencies=inverse.tolist() if rope_scaling(hf) else None,
        # a factor on the cosines and sines of queries and keys is its square on the attention scores
        softmax_scale=d**-0.5 * factor**2 if factor != 1.0 else None,
        share_embeddings_and_output_weights=bool(hf.tie_word_embeddings),
        seq_length=seq_length,
        vocab_size=padded_vocabulary(hf.vocab_size, tp),
        true_num_attention_heads=hf.num_attention_heads,
        true_num_query_groups=hf.num_key_value_heads,
        true_vocab_size=hf.vocab_size,
        layers=layers,
        packed_attention=attention,
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
        bias_activation_fusion=True,  # mcore's own SwiGLU, which needs no Transformer Engine
        batch_p2p_comm=torch.cuda.is_available(),
    )
