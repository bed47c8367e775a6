"""Held-out loss: mean answer-token cross-entropy of each sample, in fp32.

    l_CE(x, y) = -1/|y| sum_j log p(y_j | x, y_<j)      (the inner term of Eq. 6, sample_reduction ``mean``)

y holds the answer's tokens and the end-of-answer token, as in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from sdrrl_nemo.eval.backends.interface import Encoded
from sdrrl_nemo.eval.backends.prefix import SharedPrefix


@dataclass(frozen=True)
class SampleLoss:
    """``mean``: nats per answer token; ``answer_tokens``: how many."""

    mean: float
    answer_tokens: int


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Row numbers in batches of similar length, longest first: rows x longest <= batch_tokens, at least one row."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


@torch.inference_mode()
def sample_losses(
    model: PreTrainedModel, samples: Sequence[Encoded], batch_tokens: int, advance: Callable[[int], object]
) -> list[SampleLoss]:
    """Loss of each sample, in the order given; ``advance(n)`` is called with the tokens done.

    Rows are padded on the right: a causal model's real tokens never see the padding, so the batch does not matter
    beyond rounding. Logits are computed from the first answer position on only.
    """
    out: list[SampleLoss | None] = [None] * len(samples)
    shared = SharedPrefix(model, [s.tokens[: s.prompt_tokens] for s in samples])
    texts = [s.tokens[shared.length :] for s in samples]
    starts = [s.prompt_tokens - shared.length for s in samples]  # where the answer begins, >= 1
    for batch in batches_by_length([len(t) for t in texts], batch_tokens):
        longest = len(texts[batch[0]])
        tokens = torch.zeros(len(batch), longest, dtype=torch.long)  # [B, L]
        answer = torch.zeros(len(batch), longest, dtype=torch.bool)  # [B, L] True where the token is a target
        for r, i in enumerate(batch):
            tokens[r, : len(texts[i])] = torch.tensor(texts[i])
            answer[r, starts[i] : len(texts[i])] = True
        tokens, answer = tokens.to(model.device), answer.to(model.device)
        first = min(starts[i] for i in batch)
        # Position j predicts token j+1: targets start at `first`, so logits are needed from first-1 on.
        logits = shared(tokens, logits_to_keep=longest - first + 1).logits[:, :-1]
        hit = answer[:, first:]
        nll = torch.nn.functional.cross_entropy(logits[hit].float(), tokens[:, first:][hit], reduction="none")
        row_of = hit.nonzero()[:, 0]
        total = torch.zeros(len(batch), dtype=torch.float64, device=nll.device).index_add_(0, row_of, nll.double())
        for r, i in enumerate(batch):
            n = len(texts[i]) - starts[i]
            out[i] = SampleLoss(float(total[r]) / n, n)
        advance(sum(len(samples[i].tokens) for i in batch))
    return [x for x in out if x is not None]


def mean_loss(losses: Sequence[SampleLoss]) -> float:
    """Mean over samples of the mean answer-token cross-entropy, nats."""
    return math.fsum(x.mean for x in losses) / len(losses)


def perplexity(losses: Sequence[SampleLoss]) -> float:
    """exp of the mean over all answer tokens (each token counts once, unlike in mean_loss)."""
    tokens = sum(x.answer_tokens for x in losses)
    return math.exp(math.fsum(x.mean * x.answer_tokens for x in losses) / tokens)
