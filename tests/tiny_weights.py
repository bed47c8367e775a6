"""Model folders written byte by byte: config.json and safetensors of zeros, without transformers or torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 8,
    "intermediate_size": 12,
    "max_position_embeddings": 64,
    "model_type": "llama",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": 7,
}
"""An untied Llama with fewer key/value heads than heads."""
_LAYER = {
    "input_layernorm.weight": (8,),
    "mlp.down_proj.weight": (8, 12),
    "mlp.gate_proj.weight": (12, 8),
    "mlp.up_proj.weight": (12, 8),
    "post_attention_layernorm.weight": (8,),
    "self_attn.k_proj.weight": (4, 8),
    "self_attn.o_proj.weight": (8, 8),
    "self_attn.q_proj.weight": (8, 8),
    "self_attn.v_proj.weight": (4, 8),
}
SHAPES: dict[str, tuple[int, ...]] = {
    "lm_head.weight": (7, 8),
    "model.embed_tokens.weight": (7, 8),
    "model.norm.weight": (8,),
    **{f"model.layers.{i}.{name}": shape for i in range(2) for name, shape in _LAYER.items()},
}
"""Its tensors, written out."""
_WIDTH = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I8": 1}


def write_tensors(file: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "F32", fill: int = 0) -> Path:
    """A safetensors file whose every byte of weights is ``fill``."""
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + math.prod(shape) * _WIDTH[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header).encode()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes([fill]) * at)
    return file


def tiny_folder(folder: Path, config: Mapping[str, Any] = CONFIG) -> Path:
    """``config`` and the tensors of ``CONFIG``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_tensors(folder / "model.safetensors", SHAPES)
    return folder
