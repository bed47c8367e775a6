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


@torch.inference_mode()
def _decode(model: Any, prompts: Sequence[Sequence[int]], limit: int) -> list[tuple[list[int], float]]:
    """Tokens before the end token and the smallest gap among the steps up to it.

    transformers' ``generate`` computes a row until the last one of its batch has ended. Here a row leaves with its end
    token: most answers are shorter than their limit, translations by far.
    """
    ends, pad = set(model.generation_config.eos_token_id), int(model.generation_config.pad_token_id)
    longest = max(len(p) for p in prompts)
    ids = torch.full((len(prompts), longest), pad, dtype=torch.long)  # [B, L], padded on the left
    mask = torch.zeros_like(ids)
    for r, prompt in enumerate(prompts):
        ids[r, longest - len(prompt) :] = torch.tensor(prompt)
        mask[r, longest - len(prompt) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    made: list[list[int]] = [[] for _ in prompts]
    gaps = [float("inf")] * len(prompts)
    rows, cache = list(range(len(prompts))), None  # numbers of the prompts that go on, in the order of the batch
    for _ in range(limit):
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits, cache = out.logits[:, -1].float(), out.past_key_values
        two = logits.topk(2, dim=-1).values
        tokens = logits.argmax(-1)
        for number, token, gap in zip(rows, tokens.tolist(), (two[:, 0] - two[:, 1]).tolist(), strict=True):
            gaps[number] = min(gaps[number], gap)
            made[number].append(token)
        going = [r for r, number in enumerate(rows) if made[number][-1] not in ends]
        if not going:
            break
        if len(going) < len(rows):
            kept = torch.tensor(going, device=model.device)
            cache.batch_select_indices(kept)
            tokens, mask, positions = tokens[kept], mask[kept], positions[kept]
            rows = [rows[r] for r in going]
        ids, positions = tokens[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
    return [(new[:-1] if new[-1] in ends else new, gap) for new, gap in zip(made, gaps, strict=True)]
