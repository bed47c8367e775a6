"""Texts that begin alike (system prompt, translation instruction) share one pass over what they share."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Number of tokens in which all rows agree, at most the shortest row's length less one."""
    if not rows:
        return 0
    ordered = sorted(list(r) for r in rows)
    low, high = ordered[0], ordered[-1]  # the rows between them agree where these two do
    limit = min(len(r) for r in rows) - 1
    return next((i for i in range(limit) if low[i] != high[i]), max(limit, 0))


class SharedPrefix:
    """A causal model behind a fixed prefix; calls take the tokens after it.

    The prefix's keys and values are computed once and repeated for each batch, which changes results by rounding only.
    Of a demo question of about 50 tokens 30 are the system prompt.
    """

    def __init__(self, model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> None:
        """``rows``: the texts' tokens as far as they may be shared."""
        self.model: Any = model
        self.length = common_prefix(rows)
        self._cache: DynamicCache | None = None
        if self.length:
            self._cache = DynamicCache(config=model.config)
            ids = torch.tensor([list(rows[0][: self.length])], device=model.device)
            self.model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)

    def __call__(self, tokens: torch.Tensor, **options: Any) -> Any:
        """Model output for ``tokens`` int64 [B, L], the part after the prefix, padded on the right."""
        if self._cache is None:
            return self.model(input_ids=tokens, use_cache=False, **options)
        cache = copy.deepcopy(self._cache)  # a call appends to it
        cache.batch_repeat_interleave(len(tokens))
        return self.model(input_ids=tokens, past_key_values=cache, use_cache=True, **options)
