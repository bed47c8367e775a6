"""Packed attention: which kernel is used, and that both ways of calling one give the same context."""

from __future__ import annotations

import math
from inspect import signature
from itertools import pairwise
from typing import Any

import pytest
import torch
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from transformers import LlamaConfig

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.model import attention
from sdrrl_nemo.train.config import RunConfig, check
from sdrrl_nemo.train.preparation import layers_in_words, layers_of

BOUNDS = [0, 5, 6, 20]
HEADS, GROUPS, SIZE = 6, 2, 8


def by_sample(q: Tensor, k: Tensor, v: Tensor, bounds: list[int], scale: float | None) -> Tensor:
    """Causal attention of [t, heads, size] within each sample, in float64."""
    scale = scale or 1 / math.sqrt(q.shape[-1])
    out = torch.empty_like(q)
    for a, b in pairwise(bounds):
        for head in range(q.shape[1]):
            group = head * k.shape[1] // q.shape[1]
            scores = scale * q[a:b, head].double() @ k[a:b, group].double().T
            hidden = torch.ones(b - a, b - a, dtype=torch.bool).triu(1)
            out[a:b, head] = (scores.masked_fill(hidden, -math.inf).softmax(-1) @ v[a:b, group].double()).to(q.dtype)
    return out


def flash_stand_in(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """What flash_attn_varlen_func computes, with its argument names."""
    assert options["causal"] is True and options["deterministic"] is False
    assert options["cu_seqlens_q"].dtype == options["cu_seqlens_k"].dtype == torch.int32
    assert options["max_seqlen_q"] == options["max_seqlen_k"] == 14
    return by_sample(q, k, v, options["cu_seqlens_q"].tolist(), options["softmax_scale"])


def _check_varlen(q: Tensor, k: Tensor, v: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int) -> None:
    """What the kernel of torch insists on, or takes for granted."""
    assert all(t.dtype == torch.bfloat16 and t.is_contiguous() and t.dim() == 3 for t in (q, k, v))
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert (type(max_q), max_q, type(max_k), max_k) == (int, 14, int, 14)


def varlen_2_10(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int,
    is_causal: bool = False, return_aux: Any = None,
) -> Tensor:  # fmt: skip
    """varlen_attn of torch 2.10."""
    _check_varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)
    assert is_causal is True
    return by_sample(query, key, value, cu_seq_q.tolist(), None)


def varlen_2_11(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
    return_aux: Any = None, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
) -> Tensor:  # fmt: skip
    """The same of torch 2.11."""
    _check_varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)
    assert window_size == (-1, 0), "what causal is called"
    return by_sample(query, key, value, cu_seq_q.tolist(), scale)


def varlen_2_12(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
    return_aux: Any = None, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """The same of torch 2.12 and 2.13, which wants to be told of grouped queries."""
    assert enable_gqa == (query.shape[1] != key.shape[1])
    return varlen_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size)


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor, PackedSeqParams]:
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(BOUNDS[-1], n, SIZE, generator=generator).bfloat16() for n in (HEADS, GROUPS, GROUPS))
    cu = torch.tensor(BOUNDS, dtype=torch.int32)
    packed = PackedSeqParams(qkv_format="thd", cu_seqlens_q=cu, cu_seqlens_kv=cu, max_seqlen_q=14, max_seqlen_kv=14)
    return q, k, v, packed


def core_attention(kernel: str, scale: float | None = None) -> attention.SDPAttention:
    config = TransformerConfig(
        num_layers=1, hidden_size=HEADS * SIZE, num_attention_heads=HEADS, num_query_groups=GROUPS
    )
    config.packed_attention = kernel
    return attention.SDPAttention(config, 1, softmax_scale=scale)


@pytest.mark.parametrize("scale", [None, 0.5])
def test_flash_attention_gets_whole_rows(
    inputs: tuple[Tensor, Tensor, Tensor, PackedSeqParams], monkeypatch: pytest.MonkeyPatch, scale: float | None
) -> None:
    q, k, v, packed = inputs
    plain = core_attention("sdpa", scale)(q, k, v, None, packed_seq_params=packed)
    monkeypatch.setattr(attention, "_flash", lambda: flash_stand_in)
    flash = core_attention("flash", scale)(q, k, v, None, packed_seq_params=packed)
    assert flash.shape == plain.shape == (BOUNDS[-1], HEADS * SIZE)
    torch.testing.assert_close(flash, plain, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("function", [varlen_2_10, varlen_2_11, varlen_2_12])
def test_torchs_varlen_attention_gets_whole_rows(
    inputs: tuple[Tensor, Tensor, Tensor, PackedSeqParams],
    monkeypatch: pytest.MonkeyPatch,
    function: Any,
    grouped: bool,
    scale: float | None,
) -> None:
    """Each version of its interface; queries, keys and values are views of one projection, as in a layer."""
    q, k, v, packed = inputs
    if not grouped:
        k, v = (t.repeat_interleave(HEADS // GROUPS, dim=1) for t in (k, v))
    plain = core_attention("sdpa", scale)(q, k, v, None, packed_seq_params=packed)
    monkeypatch.setattr(attention, "_varlen", lambda: (function, frozenset(signature(function).parameters)))
    views = torch.cat((q, k, v), dim=1).split([HEADS, k.shape[1], v.shape[1]], dim=1)
    found = core_attention("varlen", scale)(*views, None, packed_seq_params=packed)
    torch.testing.assert_close(found, plain, rtol=2**-6, atol=2**-6)


def test_the_interface_of_the_installed_torch_is_one_of_those() -> None:
    function, takes = attention._varlen()
    assert function.__module__ == "torch.nn.attention.varlen"
    known = [frozenset(signature(f).parameters) for f in (varlen_2_10, varlen_2_11, varlen_2_12)]
    assert any(takes >= parameters for parameters in known), sorted(takes)


class OnDevice:
    """cu_seqlens as far as the host looks at them."""

    def __init__(self, bounds: list[int]) -> None:
        self.bounds, self.read = bounds, 0

    def tolist(self) -> list[int]:
        self.read += 1
        return self.bounds


def test_the_bounds_of_a_micro_batch_are_read_once() -> None:
    bounds: Any = attention._BoundsOnHost()
    first, second = OnDevice([0, 3, 5]), OnDevice([0, 5])
    assert [bounds(first), bounds(first), bounds(second), bounds(first)] == [[0, 3, 5], [0, 3, 5], [0, 5], [0, 3, 5]]
    assert (first.read, second.read) == (2, 1)


HERE = {"flash_attn": False, "torch.nn.attention.varlen": True}
"""What is installed on a machine with nothing but torch."""


@pytest.mark.parametrize(
    ("rows", "capability", "installed", "taken", "why_not_varlen"),
    [
        (("bf16", 128, 1), (9, 0), HERE | {"flash_attn": True}, "flash", ""),
        (("bf16", 128, 1), (9, 0), HERE, "varlen", ""),
        (("bf16", 64, 1), (8, 0), HERE, "varlen", ""),
        (("bf16", 64, 1), (8, 0), {}, "sdpa", "torch.nn.attention.varlen is not installed"),
        (("bf16", 64, 1), (7, 5), HERE, "sdpa", "it needs an Ampere GPU or a newer one"),
        (("bf16", 64, 1), None, HERE, "sdpa", "it needs a GPU, and torch sees none"),
        (("fp32", 64, 1), (9, 0), HERE, "sdpa", "it is half precision, and trainer.precision is fp32"),
        (("bf16", 64, 2), (9, 0), HERE, "sdpa", "it knows nothing of trainer.cp"),
        (("bf16", 264, 1), (9, 0), HERE, "sdpa", "it takes head sizes to 256 in steps of 8, the model's is 264"),
        (("bf16", 36, 1), (9, 0), HERE, "sdpa", "it takes head sizes to 256 in steps of 8, the model's is 36"),
    ],
)
def test_which_kernel_is_taken(
    monkeypatch: pytest.MonkeyPatch,
    rows: tuple[str, int, int],
    capability: tuple[int, int] | None,
    installed: dict[str, bool],
    taken: str,
    why_not_varlen: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(attention, "_found", lambda module: installed.get(module, False))
    asked = attention.PackedRows(*rows)
    assert attention.chosen_attention("auto", asked).name == taken
    assert attention.chosen_attention("sdpa", asked).name == "sdpa"
    if why_not_varlen:
        with pytest.raises(SdrrlError, match=f"^model.attention: varlen cannot be taken here: {why_not_varlen}; set "):
            attention.chosen_attention("varlen", asked)
    else:
        assert attention.chosen_attention("varlen", asked).name == "varlen"


def test_attention_is_chosen_where_it_is_used_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    hf = LlamaConfig(hidden_size=64, num_attention_heads=4)
    config = RunConfig(run_dir="")
    layers, kernel = layers_of(config, hf)
    assert kernel is not None and (layers, kernel.name) == ("local", "sdpa")
    assert layers_in_words(layers, kernel) == "local layers, packed rows by torch's attention, sample by sample (sdpa)"
    config.model.attention = "sdpa"
    config.data.packed = False
    with pytest.raises(SdrrlError, match=r"^model\.attention: sdpa is of local layers .* data\.packed is false"):
        layers_of(config, hf)
    config.data.packed, config.model.layers = True, "te"
    with pytest.raises(SdrrlError, match="the layers here are Transformer Engine's; set "):
        layers_of(config, hf)
    config.model.attention = "auto"
    assert layers_of(config, hf) == ("te", None)
    config.model.attention = "flush"
    with pytest.raises(SdrrlError, match=r"^model\.attention: 'flush' is not one of auto, flash, varlen, sdpa"):
        check(config, 1)
