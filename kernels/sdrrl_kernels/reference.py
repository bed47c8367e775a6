"""Plain autograd reference of the loss, in whatever precision the logits come; float64 in tests.

Source: Eq. 6 of the SDRRL paper; the weight of a token is a constant known before the forward pass. A bias of the
output layer is part of the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORE_INDEX = -100


def reference_token_losses(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    ignore_index: int = IGNORE_INDEX,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
) -> Tensor:
    """Weighted loss of every token [n]; 0 where the label is ignored or the weight is 0. Shapes: logits [n, V]."""
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    keep = (labels != ignore_index) & (weights != 0)
    safe = torch.where(keep, labels, torch.zeros_like(labels))
    lse = torch.logsumexp(logits, dim=-1)
    token = lse - logits.gather(-1, safe[:, None]).squeeze(-1)
    if label_smoothing:
        token = (1 - label_smoothing) * token + label_smoothing * (lse - logits.mean(-1))
    if z_loss:
        token = token + z_loss * lse**2
    return torch.where(keep, token * weights.to(logits.dtype), torch.zeros_like(token))


def reference_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    subset_ids: Tensor,
    num_subsets: int,
    ignore_index: int = IGNORE_INDEX,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of token losses and its split by subset.

    Shapes: logits [n, V]; labels, subset_ids int64 [n]; weights [n]. Returns (loss [], subset_sums [num_subsets]).
    """
    token = reference_token_losses(logits, labels, weights, ignore_index, label_smoothing, z_loss, softcap)
    subset_sums = torch.zeros(num_subsets, dtype=logits.dtype, device=logits.device)
    subset_sums = subset_sums.index_add(0, subset_ids.clamp(min=0), token)
    return token.sum(), subset_sums
