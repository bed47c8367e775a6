"""ln p of each choice as the continuation of its context, with what choices and questions share computed once.

A choice of n tokens needs the logits at the last n positions of context + choice[:-1]. Single letters of one question
need the very same text, so they cost one pass and one row of logits. Texts that begin alike (choices of one question,
questions on one passage) go into one row as a tree: the common beginning once, then the branches, which do not see
each other (4-D attention mask) and whose positions go on from the beginning. Only needed positions reach the output
layer, which for a small model is most of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sdrrl_nemo.compat.private import attention_kind
from sdrrl_nemo.eval.backends.answer_loss import batches_by_length
from sdrrl_nemo.eval.backends.interface import check_lengths
from sdrrl_nemo.eval.backends.prefix import common_prefix

CLOSE = 1e-3
"""Nats. When the two best choices are nearer than this, the question is decided by a pass of its own: batches round
fp32 log-likelihoods differently, by 3e-5 on SmolLM2-135M, which must not choose the answer."""
LONGEST_ROW = 2048
"""Tokens of a row of several branches; attention grows with the square."""
SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Configuration keys of models that change the output layer's result; their own forward pass is used whole."""

Text = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """``texts`` share their first ``prefix`` tokens, each has at least one more."""

    texts: tuple[Text, ...]
    prefix: int

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return self.prefix + sum(len(t) - self.prefix for t in self.texts)


def rows_of(texts: Sequence[Text], share: bool) -> list[Row]:
    """Texts as rows; a text joins its neighbour's row when that saves at least a quarter of its tokens."""
    rows: list[Row] = []
    for text in sorted(set(texts)):
        if share and rows:
            old = rows[-1]
            prefix = common_prefix([*old.texts, text])
            joined = Row((*old.texts, text), prefix)
            if joined.length <= min(old.length + 0.75 * len(text), LONGEST_ROW):
                rows[-1] = joined
                continue
        rows.append(Row((text,), 0))
    return rows


def choice_log_likelihoods(
    model: Any,
    contexts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[Sequence[int]]],
    batch_tokens: int,
    advance: Callable[[float], object],
) -> list[list[float]]:
    """Nats per (context, choice), in the order given; ``advance(n)`` is called with the questions done.

    Contexts and choices are token ids, none empty. Neither ``batch_tokens`` nor the order of the questions changes
    which choice is best; the figures themselves may differ in the fifth digit.
    """
    longest = [len(c) + max(len(k) for k in ks) - 1 for c, ks in zip(contexts, choices, strict=True)]
    check_lengths(longest, getattr(model.config, "max_position_embeddings", None), "log-likelihood of choices")
    asked = [Question(tuple(c), tuple(tuple(k) for k in ks)) for c, ks in zip(contexts, choices, strict=True)]
    table = _score(model, asked, batch_tokens, _can_share(model, max(longest)), advance)
    out = [[table[q.text(k)][q.context, k] for k in q.choices] for q in asked]
    for i, q in enumerate(asked):
        best = sorted(out[i], reverse=True)
        if len(best) > 1 and best[0] - best[1] < CLOSE:
            alone = _score(model, [q], 1, False, lambda n: None)
            out[i] = [alone[q.text(k)][q.context, k] for k in q.choices]
    return out


@dataclass(frozen=True)
class Question:
    """One context and its choices."""

    context: Text
    choices: tuple[Text, ...]

    def text(self, choice: Text) -> Text:
        """What the model reads to judge ``choice``."""
        return self.context + choice[:-1]


Table = dict[Text, dict[tuple[Text, Text], float]]


def _can_share(model: Any, longest: int) -> bool:
    """A tree needs an attention that takes a 4-D mask, and no window shorter than the text."""
    window = getattr(model.config, "sliding_window", None)
    return attention_kind(model) in ("sdpa", "eager") and (window is None or window > longest)


@torch.inference_mode()
def _score(
    model: Any, asked: Sequence[Question], batch_tokens: int, share: bool, advance: Callable[[float], object]
) -> Table:
    """text -> (context, choice) -> nats."""
    wanted: dict[Text, set[tuple[Text, Text]]] = {}
    for q in asked:
        for k in q.choices:
            wanted.setdefault(q.text(k), set()).add((q.context, k))
    rows = rows_of(list(wanted), share)
    table: Table = {t: {} for t in wanted}
    done = len(asked) / len(wanted)
    for batch in batches_by_length([r.length for r in rows], batch_tokens):
        picked = [rows[i] for i in batch]
        at: list[tuple[int, int, int]] = []  # row of the batch, position, token there
        owner: list[tuple[Text, tuple[Text, Text]]] = []
        for b, row in enumerate(picked):
            offset = 0  # a branch's tokens stand at their own index plus this
            for text in row.texts:
                for context, choice in sorted(wanted[text]):
                    for j, token in enumerate(choice):
                        position = len(context) - 1 + j
                        # A position inside the common beginning is the same for every branch.
                        at.append((b, position + (offset if position >= row.prefix else 0), token))
                        owner.append((text, (context, choice)))
                offset += len(text) - row.prefix
        found = _log_probabilities(model, picked, at)
        for (text, key), value in zip(owner, found, strict=True):
            table[text][key] = table[text].get(key, 0.0) + value
        advance(done * sum(len(r.texts) for r in picked))
    return table


def _log_probabilities(model: Any, rows: Sequence[Row], at: Sequence[tuple[int, int, int]]) -> list[float]:
    """ln p(token after position | what the position sees), fp32 softmax."""
    length = max(r.length for r in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)  # [B, L], padded on the right
    positions = torch.zeros_like(tokens)
    branch = torch.full_like(tokens, -1)  # 0: common beginning; 1, 2, ...: branches; -1: padding
    for b, row in enumerate(rows):
        start = 0
        for n, text in enumerate(row.texts):
            part = text if n == 0 else text[row.prefix :]
            end = start + len(part)
            tokens[b, start:end] = torch.tensor(part)
            positions[b, start:end] = torch.arange(len(text) - len(part), len(text))
            branch[b, start:end] = n + 1
            start = end
        branch[b, : row.prefix] = 0
    options: dict[str, Any] = {}
    if any(len(r.texts) > 1 for r in rows):
        sees = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)  # [B, query, key]
        sees &= torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros(sees.shape, dtype=model.dtype).masked_fill_(~sees, torch.finfo(model.dtype).min)
        options = {"attention_mask": mask[:, None].to(model.device), "position_ids": positions.to(model.device)}
    row_index, position, target = (torch.tensor(x, device=model.device) for x in zip(*at, strict=True))
    ids = tokens.to(model.device)
    head = model.get_output_embeddings()
    if any(getattr(model.config, key, None) is not None for key in SCALED_LOGITS):
        kept, place = position.unique(return_inverse=True)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept, **options).logits[row_index, place]
    else:
        hidden = model.base_model(input_ids=ids, use_cache=False, **options).last_hidden_state  # [B, L, H]
        spots, place = torch.stack([row_index, position]).unique(dim=1, return_inverse=True)
        logits = head(hidden[spots[0], spots[1]])[place]  # [targets, V]
    found = logits.float().log_softmax(-1).gather(1, target[:, None])[:, 0]
    return [float(x) for x in found]
