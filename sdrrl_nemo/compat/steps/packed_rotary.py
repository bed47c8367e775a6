"""megatron-core's unfused rotary embedding of packed rows, without its waits for the device.

Version 0.15.3 (models/common/embeddings/rope_utils.py) reads cu_seqlens back to the host three times a call and cuts
the frequencies sample by sample, for queries and for keys, in every layer. Here the cosine and sine of every token's
position in its sample are made once a micro-batch, on the device, and all layers share them. The same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdrrl_nemo.compat.registry import register

_PATCH = register("packed-rotary", "megatron-core", "rotary positions of packed rows are made once a micro-batch")
_state: dict[str, Any] = {"plain": None}


def apply() -> None:
    """Once, or again without effect."""
    from megatron.core.models.common.embeddings import rope_utils

    if _state["plain"] is None:
        _state["half"] = _PATCH.get(rope_utils, "_rotate_half", source="de7b8b4e6361")
        name = "_apply_rotary_pos_emb_thd"
        _state["plain"] = _PATCH.replace(rope_utils, name, rotate, source="45c1da33b8ab")


def rotate(
    t: Tensor,
    cu_seqlens: Tensor,
    freqs: Tensor,
    rotary_interleaved: bool = False,
    multi_latent_attention: bool = False,
    mscale: float = 1.0,
    cp_group: Any = None,
) -> Tensor:
    """Rotated [t, heads, size] of the tokens that this rank holds.

    Args:
        cu_seqlens: int32 [sequences + 1], of the tokens of all context-parallel ranks. Positions begin anew with each
            sequence.
        freqs: [positions, 1, 1, rotated size], one row a position.
    """
    if cp_group is None or multi_latent_attention:
        plain: Tensor = _state["plain"](
            t, cu_seqlens, freqs, rotary_interleaved, multi_latent_attention, mscale, cp_group
        )
        return plain
    cos, sin = _TABLES.of(cu_seqlens, freqs, t.shape[0], t.dtype, mscale, cp_group.size(), cp_group.rank())
    size = freqs.shape[-1]
    turned, rest = t[..., :size].unsqueeze(1), t[..., size:]
    turned = ((turned * cos) + (_state["half"](turned, rotary_interleaved) * sin)).squeeze(1)
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


class _Tables:
    """The latest cosines and sines. They are kept by the very tensors they were made from: a micro-batch brings its own
    cu_seqlens, and layers are asked about it one after the other."""

    def __init__(self) -> None:
        self._source: tuple[Tensor, Tensor] | None = None
        self._settings: tuple[Any, ...] = ()
        self._made: tuple[Tensor, Tensor] | None = None

    def of(self, cu_seqlens: Tensor, freqs: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
        """(cosines, sines) [t, 1, 1, rotated size] in the type of the rotated tensor."""
        source = self._source
        same = source is not None and source[0] is cu_seqlens and source[1] is freqs and self._settings == settings
        if not same or self._made is None:
            tokens, dtype, mscale, cp_size, cp_rank = settings
            angles = freqs.index_select(0, positions(cu_seqlens, tokens, cp_size, cp_rank))
            self._made = (torch.cos(angles) * mscale).to(dtype), (torch.sin(angles) * mscale).to(dtype)
            self._source, self._settings = (cu_seqlens, freqs), settings
        return self._made


_TABLES = _Tables()


def positions(cu_seqlens: Tensor, tokens: int, cp_size: int = 1, cp_rank: int = 0) -> Tensor:
    """Position in its sequence of each of the ``tokens`` that a context-parallel rank holds, int64 [tokens].

    Of each sequence a rank has two chunks of a 2 * cp_size-th, number cp_rank and the same from the end
    (model/context_parallel.py). Nothing is read back to the host.
    """
    begins = cu_seqlens[:-1].long()
    whole = cu_seqlens[1:].long() - begins
    held = whole // cp_size
    at = torch.arange(tokens, device=cu_seqlens.device)

    def spread(of_sequence: Tensor) -> Tensor:
        return torch.repeat_interleave(of_sequence, held, output_size=tokens)

    within = at - spread(begins // cp_size)
    if cp_size == 1:
        return within
    half = spread(held // 2)
    later = spread(whole - held // 2 * (cp_rank + 2))  # less what comes before the second chunk: one chunk
    return torch.where(within < half, within + cp_rank * half, within + later)
