"""Greedy answers that neither the batch nor the order of the prompts changes.

Batches of other shapes round fp32 logits differently in the fifth digit, which turns a token where the two best are
about equal, and then the rest of the answer. Here every step records the distance of its two best logits; an answer
with a step closer than ``CLOSE`` is decoded again on its own, without padding. All others would come out the same in
any batch, so the result is that of decoding one by one, at the speed of batches.

In half precision rounding is larger than ``CLOSE``: nothing is decoded again, and the batch is part of a result's
identity (local.py).

With ``batch_size`` the batches are fixed instead and close calls are left as they fall: the held-out evaluation's way,
where the batch is part of a result's identity and half precision is common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from sdrrl_nemo.data.engines.greedy_decoder import decode
from sdrrl_nemo.eval.backends.interface import check_lengths

CLOSE = 1e-3
"""Difference of logits; rounding of fp32 batches is far smaller (docs/evaluation.md)."""


def generate_batches(
    lengths: Sequence[int], limits: Sequence[int], batch_tokens: int, batch_size: int = 0
) -> list[list[int]]:
    """Prompt numbers per batch: same limit, similar length, rows x (longest + limit) <= batch_tokens or one row; with
    ``batch_size`` so many rows whatever their length."""
    order = sorted(range(len(lengths)), key=lambda i: (-limits[i], -lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        if batches:
            first = batches[-1][0]
            rows = len(batches[-1]) + 1
            fits = rows <= batch_size if batch_size else rows * (lengths[first] + limits[first]) <= batch_tokens
            if fits and limits[first] == limits[i]:
                batches[-1].append(i)
                continue
        batches.append([i])
    return batches


def greedy(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    batch_tokens: int,
    advance: Callable[[float], object],
    batch_size: int = 0,
) -> list[dict[str, Any]]:
    """{"text", "tokens", "finished"} per prompt of token ids, in the order given; at most ``limits[i]`` new tokens.

    ``advance(n)`` is called with the prompts done. In half precision the promise of the module does not hold; fp32 is
    the default for that reason.
    """
    exact = model.dtype == torch.float32
    positions = getattr(model.config, "max_position_embeddings", None)
    check_lengths([len(p) + n for p, n in zip(prompts, limits, strict=True)], positions, "prompts and their answers")
    out: list[dict[str, Any]] = [{} for _ in prompts]
    for batch in generate_batches([len(p) for p in prompts], limits, batch_tokens, batch_size):
        found = _decode(model, [prompts[i] for i in batch], limits[batch[0]])
        for i, (together, gap) in zip(batch, found, strict=True):
            alone = exact and not batch_size and len(batch) > 1 and gap < CLOSE
            tokens = _decode(model, [prompts[i]], limits[i])[0][0] if alone else together
            text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            out[i] = {"text": text, "tokens": len(tokens), "finished": len(tokens) < limits[i]}
        advance(len(batch))
    return out


def _decode(model: Any, prompts: Sequence[Sequence[int]], limit: int) -> list[tuple[list[int], float]]:
    """Tokens before the end token and the smallest gap among the steps up to it."""
    ends, pad = set(model.generation_config.eos_token_id), int(model.generation_config.pad_token_id)
    rows = decode(model, prompts, limit, sorted(ends), pad)
    return [(r.tokens[:-1] if r.tokens[-1] in ends else r.tokens, r.gap) for r in rows]
