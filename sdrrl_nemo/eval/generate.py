"""Greedy answers in batches, padded on the left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """``text`` without special tokens; ``finished`` is False when max_new_tokens cut it."""

    text: str
    tokens: int
    finished: bool


@torch.inference_mode()
def greedy_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    advance: Callable[[int], object],
) -> list[Answer]:
    """One answer per prompt (token ids), in the order given; ``advance(n)`` is called with the prompts done.

    Prompts of similar length share a batch, so little is padded. In bf16 another batch size may round otherwise and
    turn a close call at some token; with the same settings the answers are the same.
    """
    ends = set(model.generation_config.eos_token_id)
    pad = int(model.generation_config.pad_token_id)
    out: dict[int, Answer] = {}
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        longest = len(prompts[batch[0]])
        ids = torch.full((len(batch), longest), pad, dtype=torch.long)  # [B, L]
        mask = torch.zeros_like(ids)
        for r, i in enumerate(batch):
            ids[r, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[r, longest - len(prompts[i]) :] = 1
        made = model.generate(  # type: ignore[operator]
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), max_new_tokens=max_new_tokens
        )
        for r, i in enumerate(batch):
            new = made[r, longest:].tolist()
            length = next((k for k, t in enumerate(new) if t in ends), len(new))
            text = tokenizer.decode(new[:length], skip_special_tokens=True).strip()
            out[i] = Answer(text, length, length < len(new))
        advance(len(batch))
    return [out[i] for i in range(len(prompts))]
