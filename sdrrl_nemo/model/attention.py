"""Causal attention for the local layer spec: padded batches and packed (varlen) sequences.

Used where Transformer Engine is absent. Block-diagonal over cu_seqlens: a token attends within its own sample only.
Packed rows go through flash-attention's varlen kernel where the package and a GPU are there (FlashAttention-2, Dao
2023); otherwise torch's SDPA sees each sample alone, so no [s, s] mask is ever built. Under context parallelism a rank
has part of the queries and gathers all keys and values (model/context_parallel.py).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, cat
from torch.nn.attention.bias import causal_lower_right

from sdrrl_nemo.model.context_parallel import chunks_of_rank, gather_sequence


@cache
def flash_varlen() -> Callable[..., Tensor] | None:
    """flash-attention's kernel for packed rows; None without a GPU or the package."""
    if not torch.cuda.is_available() or importlib.util.find_spec("flash_attn") is None:
        return None
    from flash_attn import flash_attn_varlen_func

    found: Callable[..., Tensor] = flash_attn_varlen_func
    return found


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
        # a view of the fused projection would keep queries and keys before their rotation until the backward pass
        value = value.contiguous()
        if packed_seq_params is None:
            width, rows = query.shape[:2]
            if self.config.context_parallel_size == 1:
                q, k, v = (t.permute(1, 2, 0, 3) for t in (query, key, value))  # [b, n, s, hn]
                return self._attend(q, k, v).permute(2, 0, 1, 3).reshape(width, rows, -1)
            bounds = [0, width * self.config.context_parallel_size]
            parts = [self._rows(query[:, i], key[:, i], value[:, i], bounds) for i in range(rows)]
            return torch.stack(parts, dim=1).reshape(width, rows, -1)
        flash = flash_varlen()
        if flash is not None and query.dtype != torch.float32 and self.config.context_parallel_size == 1:
            p = packed_seq_params  # no copy to the host, and grouped queries as they are
            out = flash(
                query,
                key,
                value,
                cu_seqlens_q=p.cu_seqlens_q,
                cu_seqlens_k=p.cu_seqlens_kv,
                max_seqlen_q=p.max_seqlen_q,
                max_seqlen_k=p.max_seqlen_kv,
                softmax_scale=self.softmax_scale,
                causal=True,
                deterministic=self.config.deterministic_mode,
            )
        else:
            out = self._rows(query, key, value, packed_seq_params.cu_seqlens_q.tolist())
        return out.reshape(out.shape[0], -1)

    def _rows(self, query: Tensor, key: Tensor, value: Tensor, bounds: Sequence[int]) -> Tensor:
        """Context [t, np, hn] of this rank's queries [t, np, hn]; ``bounds``: cu_seqlens of all ranks' tokens."""
        size = self.config.context_parallel_size
        if size > 1:
            group = parallel_state.get_context_parallel_group()
            key, value = gather_sequence(torch.stack((key, value), dim=1), bounds, group).unbind(1)  # one message
        q, k, v = (t.transpose(0, 1).unsqueeze(0) for t in (query, key, value))  # [1, n, t, hn]
        if size == 1:
            parts = [self._attend(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b]) for a, b in pairwise(bounds)]
        else:
            parts, at = [], 0
            for begin, end in pairwise(bounds):
                for a, b in chunks_of_rank(begin, end, size, group.rank()):
                    parts.append(self._attend(q[:, :, at : at + b - a], k[:, :, begin:b], v[:, :, begin:b]))
                    at += b - a
        return cat([part.transpose(1, 2) for part in parts], dim=1).squeeze(0)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The queries are the last of the keys' positions: causal, aligned at the end."""
        dtype = q.dtype
        if q.device.type == "cpu" and dtype != torch.float32:
            # measured: torch's CPU kernel is 2.5 to 3.5 times slower backward in bf16 than in fp32 at 64-128 tokens
            q, k, v = q.float(), k.float(), v.float()
        grouped = q.shape[1] != k.shape[1]
        n, m = q.shape[2], k.shape[2]
        mask = None if n == m else causal_lower_right(n, m)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=self.softmax_scale, enable_gqa=grouped
        )
        return out.to(dtype)
