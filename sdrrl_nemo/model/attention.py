"""Causal attention through torch's SDPA for the local layer spec: padded batches and packed (varlen) sequences.

Used where Transformer Engine / flash-attention are absent. Block-diagonal over cu_seqlens: a token attends within
its own sample only, and the SDPA kernel sees each sample alone, so no [s, s] mask is ever built.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, cat


class SDPAttention(MegatronModule):
    """Core attention of one layer. s: sequence, b: batch, np/ng: query/key heads on this rank, hn: head size."""

    def __init__(self, config: TransformerConfig, layer_number: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(config=config)
        self.layer_number = layer_number
        self.softmax_scale = kwargs.get("softmax_scale")

    def forward(
        self,
        query: Tensor,  # [s, b, np, hn], packed: [t, np, hn]
        key: Tensor,  # [s, b, ng, hn], packed: [t, ng, hn]
        value: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type: Any = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:
        """Context [s, b, np * hn], packed: [t, np * hn]. Right padding needs no mask: causality hides it."""
        if attention_bias is not None:
            raise ValueError("SDPAttention takes no attention bias")
        if packed_seq_params is None:
            q, k, v = (t.permute(1, 2, 0, 3) for t in (query, key, value))  # [b, n, s, hn]
            out = self._attend(q, k, v).permute(2, 0, 1, 3)
            return out.reshape(*out.shape[:2], -1)
        bounds = packed_seq_params.cu_seqlens_q.tolist()
        q, k, v = (t.transpose(0, 1).unsqueeze(0) for t in (query, key, value))  # [1, n, t, hn]
        parts = [self._attend(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b]) for a, b in pairwise(bounds)]
        out = cat(parts, dim=2).squeeze(0).transpose(0, 1)  # [t, np, hn]
        return out.reshape(out.shape[0], -1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dtype = q.dtype
        if q.device.type == "cpu" and dtype != torch.float32:
            # measured: torch's CPU kernel is 2.5 to 3.5 times slower backward in bf16 than in fp32 at 64-128 tokens
            q, k, v = q.float(), k.float(), v.float()
        grouped = q.shape[1] != k.shape[1]
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.softmax_scale, enable_gqa=grouped)
        return out.to(dtype)
