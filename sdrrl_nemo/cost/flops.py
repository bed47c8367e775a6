"""Floating-point operations of a training step, exact and as 6ND; no Megatron here, so it costs nothing to import.

A matrix product of [m, k] by [k, n] is 2mkn operations; the backward pass does two of each, so a step is three times
its forward pass (Narayanan et al. 2021, appendix). Recomputed activations and padding are not counted: these are the
model's operations (MFU of Chowdhery et al. 2022), not the hardware's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RANK_MULTIPLE, RANKS, SMALL_MULTIPLE, WORTH = 128, 8, 64, 32
"""Numbers of ``padded_vocabulary``."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a Llama-like decoder: RMSNorm, SwiGLU, grouped queries; true ones, without padding."""

    layers: int
    hidden: int
    heads: int
    groups: int
    """Key/value heads."""
    head_dim: int
    feed_forward: int
    vocabulary: int
    tied: bool = False
    qkv_bias: bool = False
    proj_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    gated: bool = True
    """SwiGLU's three feed-forward matrices; False: two, as in GPT (sizes of published runs)."""

    @classmethod
    def of(cls, hf: Any) -> ModelShape:
        """From a Hugging Face config (an object with its attributes)."""
        family = str(hf.model_type)
        return cls(
            layers=hf.num_hidden_layers,
            hidden=hf.hidden_size,
            heads=hf.num_attention_heads,
            groups=getattr(hf, "num_key_value_heads", None) or hf.num_attention_heads,
            head_dim=getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads,
            feed_forward=hf.intermediate_size,
            vocabulary=hf.vocab_size,
            tied=bool(hf.tie_word_embeddings),
            qkv_bias=family == "qwen2" or bool(getattr(hf, "attention_bias", False)),
            proj_bias=family in ("llama", "qwen3") and bool(getattr(hf, "attention_bias", False)),
            mlp_bias=family == "llama" and bool(getattr(hf, "mlp_bias", False)),
            qk_norm=family == "qwen3",
        )

    def layer_matrices(self) -> int:
        """Parameters of one layer's projections: query, key, value, output, gate (if gated), up, down."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.groups)
        return attention + (3 if self.gated else 2) * self.hidden * self.feed_forward

    def layer_parameters(self) -> int:
        """All parameters of one layer."""
        biases = (self.heads + 2 * self.groups) * self.head_dim if self.qkv_bias else 0
        biases += self.hidden if self.proj_bias else 0
        biases += 2 * self.feed_forward + self.hidden if self.mlp_bias else 0
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        return self.layer_matrices() + biases + norms

    def parameters(self) -> int:
        """All parameters; a tied embedding counts once."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * self.layer_parameters() + self.hidden + embeddings


def training_flops(
    shape: ModelShape,
    lengths: npt.NDArray[np.integer[Any] | np.floating[Any]],
    frozen: bool = False,
    projected: float | None = None,
) -> float:
    """Operations of forward and backward over samples of these lengths [samples], a mean length included.

    Causal attention within each sample: token i meets i keys, once for the scores and once for the values. ``frozen``
    weights (LoRA) have no gradient of their own, two products a weight instead of three; the adapters' are left out.
    ``projected``: tokens that the output layer sees, those with loss; None: all.
    """
    n = np.asarray(lengths, np.float64)
    tokens = float(n.sum())
    pairs = float((n * (n + 1) / 2).sum())
    output = (tokens if projected is None else projected) * shape.hidden * shape.vocabulary
    matrices = 2 * (tokens * shape.layers * shape.layer_matrices() + output)
    attention = 4 * pairs * shape.layers * shape.heads * shape.head_dim
    return (2 if frozen else 3) * matrices + 3 * attention


def six_nd(shape: ModelShape, tokens: float, frozen: bool = False) -> float:
    """6ND of Kaplan et al. 2020: N parameters without the input embedding, D tokens; 4ND where they are ``frozen``."""
    n = shape.parameters() - (0 if shape.tied else shape.vocabulary * shape.hidden)
    return (4.0 if frozen else 6.0) * n * tokens


def padded_vocabulary(rows: int, tp: int) -> int:
    """Rows of the embedding that a new run works with: ``tp`` divides them, and they are the same for tp 1, 2, 4 and 8.

    A multiple of 128 * lcm(8, tp), so that every rank of any of these sizes holds a multiple of 128: Megatron pads so
    for a single size. Rows of logits then start at whole memory lines, which wide loads (kernels/) and matrix units
    want. Where that would add more than a thirty-second of the rows, as for small vocabularies, it is a multiple of
    lcm(64, tp). From 31,776 rows on (Llama 2's 32,000 become 32,768) the first holds for every tp that divides 8.

    One number for several sizes, because a checkpoint of the distributed optimiser holds flat slices of the padded
    table. A run that continues keeps its checkpoint's (train/strategy.py, ``rows_to_continue``).
    """
    for multiple in (RANK_MULTIPLE * math.lcm(RANKS, tp), math.lcm(SMALL_MULTIPLE, tp)):
        padded = math.ceil(rows / multiple) * multiple
        if (padded - rows) * WORTH <= rows:
            break
    return padded
