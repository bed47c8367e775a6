"""Greedy decoding with a model of transformers, made for many rows on a CPU: token ids to token ids.

The tokens are those of transformers' ``generate``; what it spends its time on there is saved:

- A row leaves the batch with its end token. ``generate`` computes every row until the last one has ended.
- Questions are read in groups of like length and put side by side afterwards; one batch would pad all to the longest.
- A step attends by one batched product for the heads that share keys and values. torch's kernel for CPUs takes such a
  step ten times as long, and transformers copies keys and values once for each head of a group before.
- Keys and values grow in place, with room for the steps to come, instead of being copied in each step.

On a GPU the attention is the model's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from sdrrl_nemo.compat.transformers5 import attention_of

GROUPED = "sdrrl_grouped"
"""Name of our attention among transformers' own."""
READ_TOKENS, READ_TOKENS_ON_A_GPU = 2048, 65_536
"""Question tokens, padding included, that are read at a time."""
ROOM = 64
"""Steps that a layer's keys and values get room for when they are full."""


@dataclass
class Row:
    """What was made of one question."""

    tokens: list[int] = field(default_factory=list)
    """New ids, with the one that ended them where one did."""
    gap: float = float("inf")
    """Smallest distance of a step's two best logits, penalty included."""


@torch.inference_mode()
def decode(
    model: Any,
    questions: Sequence[Sequence[int]],
    limit: int,
    ends: Sequence[int],
    pad: int,
    penalty: float = 1.0,
    stop: Callable[[list[int]], bool] | None = None,
) -> list[Row]:
    """At most ``limit`` new tokens for each question, all of them together; give those of like length in a row.

    ``penalty`` is CTRL's (Keskar et al. 2019), for the new tokens alone: the logit of one that the answer holds is
    divided by it where positive, else multiplied. ``stop`` sees a row's new tokens after each step; where it says True
    the row ends there.
    """
    if not questions:
        return []
    rows = [Row() for _ in questions]
    ending, going = set(ends), list(range(len(questions)))  # numbers of the questions whose answers go on
    with _grouped_attention(model):
        logits, state, mask, positions = _read(model, questions, pad)
        said = torch.zeros_like(logits, dtype=torch.bool) if penalty != 1 else None  # [rows, V]
        for step in range(limit):
            if said is not None:
                logits = torch.where(said, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
            tokens = logits.argmax(-1)  # of equal logits the first, as transformers: topk may take either
            two = logits.topk(2, dim=-1).values
            gaps = (two[:, 0] - two[:, 1]).tolist()
            kept = []
            for place, (number, token) in enumerate(zip(going, tokens.tolist(), strict=True)):
                row = rows[number]
                row.tokens.append(token)
                row.gap = min(row.gap, gaps[place])
                if token not in ending and not (stop and stop(row.tokens)):
                    kept.append(place)
            if not kept or step == limit - 1:
                break
            if said is not None:
                said.scatter_(1, tokens[:, None], True)
            if len(kept) < len(going):
                places = torch.tensor(kept)  # on the CPU: layers may lie on several GPUs
                state.batch_select_indices(places)
                tokens, mask, positions = tokens[places], mask[places], positions[places]
                said = said[places] if said is not None else None
                going = [going[place] for place in kept]
            positions = positions + 1
            mask = torch.cat([mask, mask.new_ones(len(going), 1)], dim=1)
            logits = _step(model, tokens[:, None], mask, positions, state)
    return rows


def _step(model: Any, ids: Any, mask: Any, positions: Any, state: Any) -> Any:
    """Logits [rows, V] in fp32 after the last of ``ids`` [rows, tokens]."""
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=state,
        use_cache=True,
        logits_to_keep=1,
    )
    return out.logits[:, -1].float().to(ids.device)


def _read(model: Any, questions: Sequence[Sequence[int]], pad: int) -> tuple[Any, Any, Any, Any]:
    """Logits after each question [rows, V], keys and values, mask [rows, longest] and last positions [rows, 1]."""
    longest = max(len(q) for q in questions)
    ids = torch.full((len(questions), longest), pad, dtype=torch.long)  # padded on the left
    mask = torch.zeros_like(ids)
    for r, question in enumerate(questions):
        ids[r, longest - len(question) :] = torch.tensor(question)
        mask[r, longest - len(question) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    state = _cache(model)
    most = READ_TOKENS if model.device.type == "cpu" else READ_TOKENS_ON_A_GPU
    groups = [*_groups([len(q) for q in questions], most)] if _in_place(state) else [(0, len(questions))]
    logits, read = [], []
    for first, last in groups:
        own = longest - max(len(q) for q in questions[first:last])  # columns that are padding in all of these rows
        part = state if len(groups) == 1 else _cache(model)
        part_ids, part_mask, part_positions = (x[first:last, own:] for x in (ids, mask, positions))
        logits.append(_step(model, part_ids, part_mask, part_positions, part))
        read.append((part, own))
    if len(groups) > 1:
        _join(read, state)
    return torch.cat(logits), state, mask, positions[:, -1:]


def _groups(lengths: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of rows that are read together, in the order given: at most ``most`` tokens, or one row."""
    first = 0
    for last in range(1, len(lengths) + 1):
        if last == len(lengths) or (last + 1 - first) * max(lengths[first : last + 1]) > most:
            yield first, last
            first = last


def _join(read: Sequence[tuple[Any, int]], state: Any) -> None:
    """Put keys and values of the groups side by side in ``state``, each with its missing columns on the left. A layer
    of the groups is given up once it is copied."""
    for number in range(len(read[0][0].layers)):
        sides = []
        for part, missing in read:
            layer = part.layers[number]
            sides.append([torch.nn.functional.pad(x, (0, 0, missing, 0)) for x in (layer.keys, layer.values)])
            layer.keys = layer.values = None
        state.update(torch.cat([k for k, _ in sides]), torch.cat([v for _, v in sides]), number)


def _cache(model: Any) -> Any:
    """An empty cache; its layers grow in place where they keep every token (one of a window does not)."""
    state = DynamicCache(config=model.config)
    for layer in state.layers:
        if type(layer) is DynamicLayer:
            layer.__class__ = _RoomyLayer
    return state


def _in_place(state: Any) -> bool:
    return bool(state.layers) and all(type(layer) is _RoomyLayer for layer in state.layers)


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values [rows, heads, tokens, size] as views of tensors with room for more tokens."""

    keys: Any
    values: Any
    _key_room: Any = None
    _value_room: Any = None

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Append those of new tokens; returns all."""
        if not self.is_initialized:
            return tuple(super().update(key_states, value_states, *args, **kwargs))  # type: ignore[return-value]
        self.keys, self._key_room = _appended(self.keys, self._key_room, key_states)
        self.values, self._value_room = _appended(self.values, self._value_room, value_states)
        return self.keys, self.values


def _appended(held: Any, room: Any, new: Any) -> tuple[Any, Any]:
    """(``held`` and ``new`` together, the tensor they are a view of): ``room`` where that is theirs and suffices."""
    tokens = held.shape[-2] + new.shape[-2]
    if room is None or held.data_ptr() != room.data_ptr() or len(held) != len(room) or tokens > room.shape[-2]:
        room = held.new_empty(*held.shape[:2], tokens + ROOM, held.shape[-1])
        room[:, :, : held.shape[-2]] = held
    room[:, :, held.shape[-2] : tokens] = new
    return room[:, :, :tokens], room


@contextlib.contextmanager
def _grouped_attention(model: Any) -> Iterator[None]:
    """The model attends with `_attention` meanwhile, where it runs on a CPU and would take torch's own kernel."""
    before = attention_of(model.config)
    if model.device.type != "cpu" or before != "sdpa":
        yield
        return
    _register()
    model.set_attn_implementation(GROUPED)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> Any:
        if query.shape[2] != 1 or options.get("dropout"):
            return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return _attention(query, key, value, attention_mask, options.get("scaling")), None

    AttentionInterface.register(GROUPED, attention)
    AttentionMaskInterface.register(GROUPED, AttentionMaskInterface()["sdpa"])


def _attention(query: Any, key: Any, value: Any, mask: Any, scaling: float | None) -> Any:
    """One new token a row: query [rows, heads, 1, size], key and value [rows, groups, tokens, size], mask [rows, 1, 1,
    tokens] (True or 0: seen) or None; returns [rows, 1, heads, size]. Weights are made in fp32."""
    rows, heads, _, size = query.shape
    groups = key.shape[1]
    grouped = query.reshape(rows, groups, heads // groups, size)
    scores = torch.matmul(grouped, key.transpose(-1, -2)).float()  # [rows, groups, heads of a group, tokens]
    scores.mul_(size**-0.5 if scaling is None else scaling)
    if mask is not None:
        seen = mask[..., : key.shape[-2]]
        scores = scores.masked_fill_(~seen, float("-inf")) if seen.dtype == torch.bool else scores.add_(seen)
    weights = scores.softmax(-1).to(value.dtype)
    return torch.matmul(weights, value).reshape(rows, 1, heads, value.shape[-1])
