"""Eq. 6 inside the model: the last pipeline stage returns the weighted loss and its split by subset, not logits.

The weights make the loss a plain sum: over tokens, micro-batches and data-parallel ranks. Nothing divides it
(``calculate_per_token_loss`` switches Megatron's division by micro-batches off, ``sum_gradients`` the one by tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from megatron.core import parallel_state
from megatron.core.distributed import finalize_model_grads
from nemo.lightning.megatron_parallel import MegatronLossReduction
from torch import Tensor

from kernels.cross_entropy_torch import vocab_parallel_cross_entropy
from sdrrl_nemo.data.subsets import SUBSETS

LOSS_NAMES = ("loss", *(f"loss_{d}" for d in SUBSETS))
"""Meaning of the entries of a loss vector, fp32 [7]."""


class LossInputs(NamedTuple):
    """What the last stage needs beside the logits, each [b, s]; travels through Megatron's ``labels`` argument."""

    labels: Tensor
    weights: Tensor
    subset_ids: Tensor


def attach_loss(model: Any, true_vocab_size: int) -> None:
    """Make an mcore GPTModel compute the loss vector [7] in place of per-token losses."""
    if not model.post_process:
        return

    def compute(inputs: LossInputs, logits: Tensor) -> Tensor:
        # [s * b], the order of the logits' rows
        labels, weights, subset_ids = (t.transpose(0, 1).reshape(-1) for t in inputs)
        per_rank = logits.shape[-1]
        loss, sums = vocab_parallel_cross_entropy(
            logits.reshape(-1, per_rank),
            labels,
            weights,
            subset_ids,
            len(SUBSETS),
            vocab_start=parallel_state.get_tensor_model_parallel_rank() * per_rank,
            vocab_size=true_vocab_size,
            tp_group=parallel_state.get_tensor_model_parallel_group(),
        )
        return torch.cat([loss[None], sums])

    model.compute_language_model_loss = compute


class Eq6LossReduction(MegatronLossReduction):  # type: ignore[misc]
    """Hands the loss to Megatron's schedule undivided and sums the loss vectors of a step."""

    def forward(self, batch: Any, forward_out: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(loss, token count that is never used, {"vector": loss vector [7]}).

        The loss is a copy, not a view: the pipeline schedule frees outputs and refuses to free a view.
        """
        unused = torch.zeros((), dtype=torch.int, device=forward_out.device)
        return forward_out[0].clone(), unused, {"vector": forward_out.detach()}

    def reduce(self, losses_reduced_per_micro_batch: Sequence[dict[str, Tensor]]) -> Tensor:
        """Loss vector [7] of the global batch: summed over micro-batches and data-parallel ranks, in float64."""
        total = torch.stack([x["vector"].double() for x in losses_reduced_per_micro_batch]).sum(0)
        torch.distributed.all_reduce(total, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
        return total


def sum_gradients(model: list[Any], num_tokens: Tensor | None = None, **kwargs: Any) -> None:
    """mcore's finalize_model_grads without its division by tokens: gradients are sums, as the loss is."""
    finalize_model_grads(model, None, **kwargs)
