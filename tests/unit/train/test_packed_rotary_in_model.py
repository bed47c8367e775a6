"""A whole model with rotary positions made once a micro-batch: losses and gradients have megatron-core's bits."""

from __future__ import annotations

import pytest
import torch
from megatron.core import parallel_state
from megatron.core.models.common.embeddings import rope_utils
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from transformers import LlamaConfig

from sdrrl_nemo.compat.start import prepare
from sdrrl_nemo.compat.steps import packed_rotary
from sdrrl_nemo.model.provider import gpt_config

prepare()

BOUNDS = [0, 5, 6, 19, 24]


@pytest.mark.usefixtures("alone")
def test_losses_and_gradients_of_a_model_have_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    model_parallel_cuda_manual_seed(7)
    hf = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=64,
    )  # fmt: skip
    config = gpt_config(hf, seq_length=BOUNDS[-1])
    assert parallel_state.get_context_parallel_world_size() == 1
    model = config.configure_model(None, pre_process=True, post_process=True)
    cu = torch.tensor(BOUNDS, dtype=torch.int32)
    tokens = torch.arange(BOUNDS[-1])[None] % 64
    at = torch.cat([torch.arange(n) for n in cu.diff().tolist()])[None]

    def once() -> list[torch.Tensor]:
        model.zero_grad()
        packed = PackedSeqParams(qkv_format="thd", cu_seqlens_q=cu, cu_seqlens_kv=cu, max_seqlen_q=13, max_seqlen_kv=13)
        loss = model(input_ids=tokens, position_ids=at, attention_mask=None, packed_seq_params=packed)
        loss = loss.float().square().mean()
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in model.parameters())]

    ours = once()
    assert sum(float(g.abs().sum()) > 0 for g in ours) > 10
    monkeypatch.setattr(rope_utils, "_apply_rotary_pos_emb_thd", packed_rotary._state["plain"])
    assert all(torch.equal(a, b) for a, b in zip(ours, once(), strict=True))
