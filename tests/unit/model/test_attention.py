"""Packed attention: which kernel is used, and that both ways of calling one give the same context."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from sdrrl_nemo.model import attention

BOUNDS = [0, 5, 6, 20]
HEADS, GROUPS, SIZE = 6, 2, 8


def stand_in(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """What flash_attn_varlen_func computes, in float64 with its argument names: [t, heads, size], causal by sample."""
    assert options["causal"] is True
    assert options["cu_seqlens_q"].dtype == options["cu_seqlens_k"].dtype == torch.int32
    assert options["max_seqlen_q"] == options["max_seqlen_k"] == 14
    scale = options["softmax_scale"] or 1 / math.sqrt(q.shape[-1])
    out = torch.empty_like(q)
    for a, b in pairwise(options["cu_seqlens_q"].tolist()):
        for head in range(q.shape[1]):
            group = head * k.shape[1] // q.shape[1]
            scores = scale * q[a:b, head].double() @ k[a:b, group].double().T
            hidden = torch.ones(b - a, b - a, dtype=torch.bool).triu(1)
            out[a:b, head] = (scores.masked_fill(hidden, -math.inf).softmax(-1) @ v[a:b, group].double()).to(q.dtype)
    return out


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor, PackedSeqParams]:
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(BOUNDS[-1], n, SIZE, generator=generator).bfloat16() for n in (HEADS, GROUPS, GROUPS))
    cu = torch.tensor(BOUNDS, dtype=torch.int32)
    packed = PackedSeqParams(qkv_format="thd", cu_seqlens_q=cu, cu_seqlens_kv=cu, max_seqlen_q=14, max_seqlen_kv=14)
    return q, k, v, packed


def core_attention() -> attention.SDPAttention:
    config = TransformerConfig(
        num_layers=1, hidden_size=HEADS * SIZE, num_attention_heads=HEADS, num_query_groups=GROUPS
    )
    return attention.SDPAttention(config, 1)


def test_flash_attention_gets_whole_rows(
    inputs: tuple[Tensor, Tensor, Tensor, PackedSeqParams], monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v, packed = inputs
    plain = core_attention()(q, k, v, None, packed_seq_params=packed)
    monkeypatch.setattr(attention, "flash_varlen", lambda: stand_in)
    flash = core_attention()(q, k, v, None, packed_seq_params=packed)
    assert flash.shape == plain.shape == (BOUNDS[-1], HEADS * SIZE)
    torch.testing.assert_close(flash, plain, rtol=2**-7, atol=2**-7)


def test_fp32_stays_with_sdpa(
    inputs: tuple[Tensor, Tensor, Tensor, PackedSeqParams], monkeypatch: pytest.MonkeyPatch
) -> None:
    """flash-attention has no fp32 kernel."""
    q, k, v, packed = inputs
    used: list[int] = []
    monkeypatch.setattr(attention, "flash_varlen", lambda: lambda *a, **o: used.append(1))
    core_attention()(q.float(), k.float(), v.float(), None, packed_seq_params=packed)
    assert not used


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_not_without_a_gpu() -> None:
    assert attention.flash_varlen() is None
