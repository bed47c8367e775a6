"""Rotary positions made once a micro-batch: the bits of megatron-core's own, forward and backward, on any rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from megatron.core.models.common.embeddings import rope_utils
from torch import Tensor

from sdrrl_nemo.compat.start import prepare
from sdrrl_nemo.compat.steps import packed_rotary

prepare()

SIZE, HEADS = 16, 3


class Ranks:
    """A context-parallel group, as far as the rotation asks."""

    def __init__(self, size: int, rank: int) -> None:
        self._size, self._rank = size, rank

    def size(self) -> int:
        return self._size

    def rank(self) -> int:
        return self._rank


def case(bounds: list[int], cp: int, dtype: torch.dtype, rotated: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [t, heads, size] of a rank, cu_seqlens, frequencies of as many positions as the longest sample has."""
    g = torch.Generator().manual_seed(seed)
    cu = torch.tensor(bounds, dtype=torch.int32)
    longest = int(cu.diff().max())
    freqs = torch.outer(torch.arange(longest).float(), torch.rand(rotated // 2, generator=g))
    queries = torch.randn(bounds[-1] // cp, HEADS, SIZE, generator=g).to(dtype)
    return queries, cu, torch.cat((freqs, freqs), dim=-1)[:, None, None, :]


def both(t: Tensor, *arguments: Any) -> list[tuple[Tensor, Tensor]]:
    """(rotated, gradient of the input) by megatron-core and by ours."""
    found = []
    for rotate in (packed_rotary._state["plain"], rope_utils._apply_rotary_pos_emb_thd):
        leaf = t.clone().requires_grad_()
        out = rotate(leaf, *arguments)
        out.backward(torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(out.dtype))
        assert leaf.grad is not None
        found.append((out.detach(), leaf.grad))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rotated", [SIZE, SIZE // 2])  # all of a head, or a part
@pytest.mark.parametrize(("cp", "rank"), [(1, 0), (2, 0), (2, 1), (4, 2), (4, 3)])
@pytest.mark.parametrize("interleaved", [False, True])
def test_the_same_bits_as_megatron(dtype: torch.dtype, rotated: int, cp: int, rank: int, interleaved: bool) -> None:
    for bounds in ([0, 8, 24, 32, 72], [0, 40], [0, 16, 32]):
        t, cu, freqs = case(bounds, cp, dtype, rotated)
        theirs, ours = both(t, cu, freqs, interleaved, False, 1.25, Ranks(cp, rank))
        assert theirs[0].dtype == ours[0].dtype == dtype
        assert torch.equal(theirs[0], ours[0]) and torch.equal(theirs[1], ours[1])


def test_megatron_calls_it_and_so_do_not_those_that_it_is_not_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rope_utils._apply_rotary_pos_emb_thd is packed_rotary.rotate
    asked: list[Any] = []
    monkeypatch.setitem(packed_rotary._state, "plain", lambda *a: asked.append(a) or "theirs")
    t, cu, freqs = case([0, 8], 1, torch.float32, SIZE)
    assert packed_rotary.rotate(t, cu, freqs, False, True, 1.0, Ranks(1, 0)) == "theirs"  # latent attention
    assert packed_rotary.rotate(t, cu, freqs, False, False, 1.0, None) == "theirs"  # has a sentence for it
    assert [a[3:] for a in asked] == [(False, True, 1.0, asked[0][-1]), (False, False, 1.0, None)]


def test_made_once_a_micro_batch_and_anew_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries and keys of two layers, then a micro-batch of the same length with other samples, then the first again:
    a pipeline has several under way."""
    made: list[int] = []
    positions = packed_rotary.positions

    def counted(*arguments: Any) -> Tensor:
        made.append(1)
        return positions(*arguments)

    monkeypatch.setattr(packed_rotary, "positions", counted)
    first, second = case([0, 8, 24], 1, torch.float32, SIZE), case([0, 16, 24], 1, torch.float32, SIZE)
    freqs = first[2]  # the longest samples are as long: megatron-core hands over the same tensor
    alone = Ranks(1, 0)
    want = [packed_rotary._state["plain"](t, cu, freqs, cp_group=alone) for t, cu, _ in (first, second)]
    for _ in range(4):
        assert torch.equal(packed_rotary.rotate(first[0], first[1], freqs, cp_group=alone), want[0])
    assert len(made) == 1
    assert torch.equal(packed_rotary.rotate(second[0], second[1], freqs, cp_group=alone), want[1])
    assert torch.equal(packed_rotary.rotate(first[0], first[1], freqs, cp_group=alone), want[0])
    assert len(made) == 3
    packed_rotary.rotate(first[0].bfloat16(), first[1], freqs, cp_group=alone)
    assert len(made) == 4
