"""Weights between Hugging Face folders and Megatron tensors, for the families of ``families.py``; copies are exact.

Layouts (h hidden, d head size, g key/value groups, r query heads per group, f feed-forward size, V vocabulary):

    linear_qkv.weight   [g * (r + 2) * d, h]   per group: its r query heads, its key, its value
    linear_qkv.bias     [g * (r + 2) * d]      the same order
    q_layernorm, k_layernorm  [d]              where queries and keys are normalised, shared by all heads
    linear_proj.weight  [h, g * r * d]
    linear_proj.bias    [h]                    where attention_bias says so; whole on every rank
    linear_fc1.weight   [2 * f, h]             gate rows, then up rows (under TP each rank holds its own pair)
    linear_fc1.bias     [2 * f]                the same order, where mlp_bias says so; linear_fc2.bias [h] is whole
    word_embeddings     [V padded, h]

Groups beyond the true ones, and vocabulary rows beyond the true ones, are zeros.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.model.provider import SdrrlGPTConfig
from sdrrl_nemo.model.published.weight_files import tensors_of

LAYER = re.compile(r"^decoder\.layers\.(\d+)\.(.+)$")
NORMS = {
    "input_layernorm.weight": "input_layernorm",
    "self_attention.linear_qkv.layer_norm_weight": "input_layernorm",  # Transformer Engine fuses the norm
    "pre_mlp_layernorm.weight": "post_attention_layernorm",
    "mlp.linear_fc1.layer_norm_weight": "post_attention_layernorm",
    "self_attention.q_layernorm.weight": "self_attn.q_norm",
    "self_attention.k_layernorm.weight": "self_attn.k_norm",
}


AS_THEY_ARE = {
    "self_attention.linear_proj.bias": "self_attn.o_proj.bias",
    "mlp.linear_fc2.weight": "mlp.down_proj.weight",
    "mlp.linear_fc2.bias": "mlp.down_proj.bias",
}


class HFTensors:
    """Lazy reader of an HF folder's safetensors, sharded or not; ``[name]`` gives the tensor."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.file_of = {name: tensor.file.name for name, tensor in tensors_of(self.folder).items()}

    def __contains__(self, name: str) -> bool:
        return name in self.file_of

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.file_of:
            raise SdrrlError(f"{self.folder}: tensor '{name}' is missing from the safetensors files")
        with safe_open(self.folder / self.file_of[name], framework="pt") as f:
            return f.get_tensor(name)


def _pad_rows(t: Tensor, rows: int) -> Tensor:
    return t if t.shape[0] == rows else torch.cat([t, t.new_zeros(rows - t.shape[0], *t.shape[1:])])


def pack_qkv(q: Tensor, k: Tensor, v: Tensor, c: SdrrlGPTConfig) -> Tensor:
    """HF q [n*d, h], k and v [g*d, h] -> Megatron linear_qkv with zero groups appended."""
    d, g = c.kv_channels, c.true_num_query_groups
    r = c.true_num_attention_heads // g
    h = q.shape[1]
    blocks = torch.cat([q.view(g, r * d, h), k.view(g, d, h), v.view(g, d, h)], dim=1)
    return _pad_rows(blocks, c.num_query_groups).reshape(-1, h).contiguous()


def unpack_qkv(qkv: Tensor, c: SdrrlGPTConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse of ``pack_qkv``; the zero groups must still be zero."""
    d, g = c.kv_channels, c.true_num_query_groups
    r = c.true_num_attention_heads // g
    h = qkv.shape[1]
    blocks = qkv.view(c.num_query_groups, (r + 2) * d, h)
    _must_be_zero(blocks[g:], "linear_qkv")
    q, k, v = blocks[:g].split([r * d, d, d], dim=1)
    return q.reshape(-1, h), k.reshape(-1, h), v.reshape(-1, h)


def _must_be_zero(t: Tensor, name: str) -> None:
    if t.numel() and bool((t != 0).any()):
        raise SdrrlError(f"{name}: the padding is not zero, so the model cannot be cut back to its true size")


def _full_layer_tensor(hf: HFTensors, layer: int, rest: str, c: SdrrlGPTConfig) -> Tensor:
    base = f"model.layers.{layer}"
    if rest in NORMS:
        return hf[f"{base}.{NORMS[rest]}.weight"]
    if rest == "self_attention.linear_qkv.weight":
        q, k, v = (hf[f"{base}.self_attn.{x}_proj.weight"] for x in "qkv")
        return pack_qkv(q, k, v, c)
    if rest == "self_attention.linear_qkv.bias":
        q, k, v = (hf[f"{base}.self_attn.{x}_proj.bias"].unsqueeze(1) for x in "qkv")
        return pack_qkv(q, k, v, c).squeeze(1)
    if rest == "self_attention.linear_proj.weight":
        width = c.num_attention_heads * c.kv_channels
        return _pad_rows(hf[f"{base}.self_attn.o_proj.weight"].t(), width).t().contiguous()
    if rest in AS_THEY_ARE:
        return hf[f"{base}.{AS_THEY_ARE[rest]}"]
    name, _, kind = rest.rpartition(".")
    if name == "mlp.linear_fc1":
        return torch.cat([hf[f"{base}.mlp.{x}_proj.{kind}"] for x in ("gate", "up")])
    raise SdrrlError(f"Megatron parameter 'layer {layer}: {rest}' has no Hugging Face counterpart here")


def full_tensor(hf: HFTensors, name: str, c: SdrrlGPTConfig) -> Tensor:
    """Whole (unsharded) Megatron tensor ``name`` (global layer numbers) built from HF tensors."""
    if name == "embedding.word_embeddings.weight":
        return hf["model.embed_tokens.weight"]
    if name == "output_layer.weight":
        return hf["model.embed_tokens.weight" if c.share_embeddings_and_output_weights else "lm_head.weight"]
    if name == "decoder.final_layernorm.weight":
        return hf["model.norm.weight"]
    match = LAYER.match(name)
    if match is None:
        raise SdrrlError(f"Megatron parameter '{name}' has no Hugging Face counterpart here")
    return _full_layer_tensor(hf, int(match[1]), match[2], c)


def shard(full: Tensor, name: str, shape: torch.Size, rank: int, size: int) -> Tensor:
    """This TP rank's slice of a whole tensor; ``shape`` is the slice's expected shape."""
    if name.endswith(("linear_fc1.weight", "linear_fc1.bias")):
        gate, up = full.chunk(2)
        return torch.cat([gate.chunk(size)[rank], up.chunk(size)[rank]])
    if "word_embeddings" in name or name == "output_layer.weight":
        full = _pad_rows(full, shape[0] * size)
    for dim in range(full.dim()):
        if full.shape[dim] != shape[dim]:
            return full.chunk(size, dim=dim)[rank]
    return full


def load_hf_weights(model: Any, folder: str | Path, c: SdrrlGPTConfig, tp_rank: int, tp_size: int) -> None:
    """Fill this rank's Megatron model (mcore GPTModel, any TP/PP stage) from an HF folder, exactly."""
    hf = HFTensors(folder)
    offset = _layer_offset(model)
    with torch.no_grad():
        for local_name, param in model.named_parameters():
            name = _global_name(local_name, offset)
            piece = shard(full_tensor(hf, name, c), name, param.shape, tp_rank, tp_size)
            if piece.shape != param.shape:
                raise SdrrlError(f"{folder}: '{name}' gives {tuple(piece.shape)}, the model wants {tuple(param.shape)}")
            param.copy_(piece)


def _layer_offset(model: Any) -> int:
    layers = model.decoder.layers
    return int(layers[0].layer_number) - 1 if len(layers) else 0


def _global_name(name: str, offset: int) -> str:
    match = LAYER.match(name)
    return f"decoder.layers.{int(match[1]) + offset}.{match[2]}" if match else name


def megatron_to_hf(get: Callable[[str], Tensor], c: SdrrlGPTConfig) -> dict[str, Tensor]:
    """HF state dict from a whole (TP=1, PP=1) Megatron model; ``get(name)`` returns a Megatron tensor."""
    v = c.true_vocab_size
    out = {"model.embed_tokens.weight": get("embedding.word_embeddings.weight")[:v]}
    for i in range(c.num_layers):
        pre, hf = f"decoder.layers.{i}", f"model.layers.{i}"
        q, k, val = unpack_qkv(get(f"{pre}.self_attention.linear_qkv.weight"), c)
        proj = get(f"{pre}.self_attention.linear_proj.weight")
        true_width = c.true_num_attention_heads * c.kv_channels
        _must_be_zero(proj[:, true_width:], f"{pre}.self_attention.linear_proj")
        gate, up = get(f"{pre}.mlp.linear_fc1.weight").chunk(2)
        out |= {
            f"{hf}.self_attn.q_proj.weight": q,
            f"{hf}.self_attn.k_proj.weight": k,
            f"{hf}.self_attn.v_proj.weight": val,
            f"{hf}.self_attn.o_proj.weight": proj[:, :true_width],
            f"{hf}.mlp.gate_proj.weight": gate,
            f"{hf}.mlp.up_proj.weight": up,
            f"{hf}.mlp.down_proj.weight": get(f"{pre}.mlp.linear_fc2.weight"),
            f"{hf}.input_layernorm.weight": get(f"{pre}.input_layernorm.weight"),
            f"{hf}.post_attention_layernorm.weight": get(f"{pre}.pre_mlp_layernorm.weight"),
        }
        if c.add_qkv_bias:
            parts = unpack_qkv(get(f"{pre}.self_attention.linear_qkv.bias").unsqueeze(1), c)
            out |= {f"{hf}.self_attn.{x}_proj.bias": t.squeeze(1) for x, t in zip("qkv", parts, strict=True)}
        if c.proj_bias:
            out[f"{hf}.self_attn.o_proj.bias"] = get(f"{pre}.self_attention.linear_proj.bias")
        if c.mlp_bias:
            gate, up = get(f"{pre}.mlp.linear_fc1.bias").chunk(2)
            down = get(f"{pre}.mlp.linear_fc2.bias")
            biases = {"gate": gate, "up": up, "down": down}
            out |= {f"{hf}.mlp.{x}_proj.bias": t for x, t in biases.items()}
        if c.qk_layernorm:
            for x in "qk":
                out[f"{hf}.self_attn.{x}_norm.weight"] = get(f"{pre}.self_attention.{x}_layernorm.weight")
    out["model.norm.weight"] = get("decoder.final_layernorm.weight")
    if not c.share_embeddings_and_output_weights:
        out["lm_head.weight"] = get("output_layer.weight")[:v]
    return {name: t.detach().contiguous() for name, t in out.items()}
