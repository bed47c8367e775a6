"""Causal attention for the local layer spec: padded batches and packed (varlen) sequences.

Used where Transformer Engine is absent. Block-diagonal over cu_seqlens: a token attends within its own sample only.
Packed rows go through a kernel that takes whole rows where there is one (``KERNELS``): flash-attention's, or the same
FlashAttention-2 inside torch (Dao 2023). Otherwise torch's SDPA sees each sample alone, so no [s, s] mask is ever
built. Under context parallelism a rank has part of the queries and gathers all keys and values
(model/context_parallel.py).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.model.context_parallel import chunks_of_rank, gather_sequence

OLDEST_GPU = (8, 0)
"""Compute capability from which FlashAttention-2 runs: Ampere."""
LARGEST_HEAD, HEAD_MULTIPLE = 256, 8
"""Head sizes that FlashAttention-2 takes."""


@dataclass(frozen=True)
class PackedRows:
    """What a kernel is asked to take. ``cp``: context-parallel ranks."""

    precision: str
    head_size: int
    cp: int


@dataclass(frozen=True)
class Kernel:
    """One way to compute attention over packed rows; ``module``: what it comes from, empty: torch always has it."""

    name: str
    words: str
    module: str

    def why_not(self, rows: PackedRows) -> str:
        """Why it cannot be had here for ``rows``, as the end of a sentence; empty where it can."""
        if not self.module:
            return ""
        if rows.precision != "bf16":
            return "it is half precision, and trainer.precision is fp32"
        if rows.cp > 1:
            return "it knows nothing of trainer.cp"
        if rows.head_size > LARGEST_HEAD or rows.head_size % HEAD_MULTIPLE:
            return f"it takes head sizes to {LARGEST_HEAD} in steps of {HEAD_MULTIPLE}, the model's is {rows.head_size}"
        if not torch.cuda.is_available():
            return "it needs a GPU, and torch sees none"
        if torch.cuda.get_device_capability() < OLDEST_GPU:
            return "it needs an Ampere GPU or a newer one"
        return "" if _found(self.module) else f"{self.module} is not installed"


KERNELS = (
    Kernel("flash", "flash-attention's kernel", "flash_attn"),
    Kernel("varlen", "torch's own FlashAttention-2", "torch.nn.attention.varlen"),
    Kernel("sdpa", "torch's attention, sample by sample", ""),
)
"""In the order in which ``model.attention: auto`` takes them."""


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # its parent is absent, or it was hidden
        return False


def chosen_attention(wanted: str, rows: PackedRows) -> Kernel:
    """The kernel for ``model.attention``; SdrrlError where the one that is wanted cannot be had here."""
    if wanted == "auto":
        return next(k for k in KERNELS if not k.why_not(rows))
    kernel = next(k for k in KERNELS if k.name == wanted)
    if reason := kernel.why_not(rows):
        raise SdrrlError(f"model.attention: {wanted} cannot be taken here: {reason}; set model.attention=auto")
    return kernel


@cache
def _flash() -> Callable[..., Tensor]:
    function: Callable[..., Tensor] = importlib.import_module("flash_attn").flash_attn_varlen_func
    return function


@cache
def _varlen() -> tuple[Callable[..., Tensor], frozenset[str]]:
    """torch's varlen_attn and the names of its parameters, which differ between 2.10, 2.11 and 2.12."""
    function: Callable[..., Tensor] = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    return function, frozenset(inspect.signature(function).parameters)


def flash(q: Tensor, k: Tensor, v: Tensor, p: PackedSeqParams, scale: float | None, deterministic: bool) -> Tensor:
    """Context [t, np, hn] by flash-attention's package: grouped queries as they are, nothing copied to the host."""
    return _flash()(
        q,
        k,
        v,
        cu_seqlens_q=p.cu_seqlens_q,
        cu_seqlens_k=p.cu_seqlens_kv,
        max_seqlen_q=p.max_seqlen_q,
        max_seqlen_k=p.max_seqlen_kv,
        softmax_scale=scale,
        causal=True,
        deterministic=deterministic,
    )


def varlen(q: Tensor, k: Tensor, v: Tensor, p: PackedSeqParams, scale: float | None, deterministic: bool) -> Tensor:
    """The same by torch, which asks its own switch whether to be deterministic (compat/deterministic.py sets it)."""
    function, takes = _varlen()
    more: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in takes else {"is_causal": True}
    if "enable_gqa" in takes and q.shape[1] != k.shape[1]:
        more["enable_gqa"] = True  # 2.12 wants to be told of grouped queries; before, it takes them as they are
    if scale is not None and "scale" in takes:
        more["scale"] = scale
    elif scale is not None:
        q = q * (scale * q.shape[-1] ** 0.5)  # 2.10 always divides by the root of the head's size
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    return function(q, k, v, p.cu_seqlens_q, p.cu_seqlens_kv, p.max_seqlen_q, p.max_seqlen_kv, **more)


WHOLE_ROWS: dict[str, Callable[..., Tensor]] = {"flash": flash, "varlen": varlen}
"""Kernels that take whole packed rows, by their names in ``KERNELS``."""


class _BoundsOnHost:
    """cu_seqlens as a list. The latest are kept: all layers ask for those of one micro-batch, and on a GPU each look
    would wait for all work before it."""

    def __init__(self) -> None:
        self._of: Tensor | None = None
        self._bounds: list[int] = []

    def __call__(self, cu_seqlens: Tensor) -> list[int]:
        if self._of is not cu_seqlens:
            self._of, self._bounds = cu_seqlens, cu_seqlens.tolist()
        return self._bounds


_bounds = _BoundsOnHost()


class SDPAttention(MegatronModule):
    """Core attention of one layer. s: sequence, b: batch, np/ng: query/key heads on this rank, hn: head size."""

    def __init__(self, config: TransformerConfig, layer_number: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(config=config)
        self.layer_number = layer_number
        self.softmax_scale = kwargs.get("softmax_scale")
        self.kernel: str = getattr(config, "packed_attention", "sdpa")

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
        whole_rows = WHOLE_ROWS.get(self.kernel)
        if whole_rows is None:
            out = self._rows(query, key, value, _bounds(packed_seq_params.cu_seqlens_q))
        else:
            deterministic = self.config.deterministic_mode
            out = whole_rows(query, key, value, packed_seq_params, self.softmax_scale, deterministic)
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
