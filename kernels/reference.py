"""Plain autograd reference of the loss, in whatever precision the logits come; float64 in tests.

Source: Eq. 6 of the SDRRL paper; the weight of a token is a constant known before the forward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORE_INDEX = -100


def reference_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    subset_ids: Tensor,
    num_subsets: int,
    ignore_index: int = IGNORE_INDEX,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of token losses and its split by subset.

    Shapes: logits [n, V]; labels, subset_ids int64 [n]; weights [n]. Returns (loss [], subset_sums [num_subsets]).
    """
    keep = labels != ignore_index
    safe = torch.where(keep, labels, torch.zeros_like(labels))
    token = torch.logsumexp(logits, dim=-1) - logits.gather(-1, safe[:, None]).squeeze(-1)
    token = torch.where(keep, token * weights.to(logits.dtype), torch.zeros_like(token))
    subset_sums = torch.zeros(num_subsets, dtype=logits.dtype, device=logits.device)
    subset_sums = subset_sums.index_add(0, subset_ids.clamp(min=0), token)
    return token.sum(), subset_sums
