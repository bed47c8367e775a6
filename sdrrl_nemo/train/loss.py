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

from sdrrl_kernels.api import LossOutput, cross_entropy, linear_cross_entropy, pick_backend
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.megatron import replace_loss, replace_output_forward
from sdrrl_nemo.train.config import LossSettings


def loss_names(subset_names: Sequence[str]) -> tuple[str, ...]:
    """Meaning of the entries of a loss vector fp32 [1 + subsets]: the total, then Eq. 6's addends."""
    return ("loss", *(f"loss_{d}" for d in subset_names))


class LossInputs(NamedTuple):
    """What the last stage needs beside the logits, each [b, s]; travels through Megatron's ``labels`` argument."""

    labels: Tensor
    weights: Tensor
    subset_ids: Tensor


def check_kernel(kernel: str, device: torch.device) -> None:
    """SdrrlError when ``loss.kernel`` cannot run on ``device``; called before anything is loaded."""
    try:
        pick_backend(kernel, device)
    except (ValueError, ImportError) as e:
        raise SdrrlError(f"loss.kernel: {e}") from None


def attach_loss(model: Any, true_vocab_size: int, num_subsets: int, settings: LossSettings) -> None:
    """Make an mcore GPTModel compute the loss vector [1 + num_subsets] in place of per-token losses.

    ``fused_linear``: the output layer hands its input through, and projection and loss are one function in chunks of
    rows, so the logits of a micro-batch never exist at once. Such a model has no logits to give; it is for training.
    """
    if not model.post_process:
        return
    fused = settings.kernel == "fused_linear"
    weight = _pass_through(model.output_layer) if fused else []

    def compute(inputs: LossInputs, output: Tensor) -> Tensor:
        # [s * b], the order of the rows of logits and hidden states
        labels, weights, subset_ids = (t.transpose(0, 1).reshape(-1) for t in inputs)
        rows = output.reshape(-1, output.shape[-1])
        per_rank = (weight[0] if fused else output).shape[0 if fused else -1]
        common: dict[str, Any] = {
            "vocab_start": parallel_state.get_tensor_model_parallel_rank() * per_rank,
            "vocab_size": true_vocab_size,
            "tp_group": parallel_state.get_tensor_model_parallel_group(),
            "label_smoothing": settings.label_smoothing,
            "z_loss": settings.z_loss,
            # nothing scales the loss on its way to the backward pass (Eq6LossReduction), so its gradient is 1
            "expected_upstream": 1.0,
            "kernel": settings.kernel,
        }
        out: LossOutput
        if fused:
            common["sequence_parallel"] = model.config.sequence_parallel
            out = linear_cross_entropy(rows, weight[0], labels, weights, subset_ids, num_subsets, **common)
        else:
            out = cross_entropy(rows, labels, weights, subset_ids, num_subsets, **common)
        return torch.cat([out.loss[None], out.subset_sums])

    replace_loss(model, compute)


def _pass_through(layer: Any) -> list[Tensor]:
    """Switch the projection of an output layer off; the list returned holds the weight of its latest call."""
    latest: list[Tensor] = []

    def forward(hidden: Tensor, weight: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
        latest[:] = [layer.weight if weight is None else weight]
        return hidden, None

    replace_output_forward(layer, forward)
    return latest


class Eq6LossReduction(MegatronLossReduction):  # type: ignore[misc]
    """Hands the loss to Megatron's schedule undivided and sums the loss vectors of a step."""

    micro_losses: Tensor | None = None
    """Loss of each micro-batch of the latest step on this rank, float64 [micro-batches]; last pipeline stage only."""

    def forward(self, batch: Any, forward_out: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(loss, token count that is never used, {"vector": loss vector}).

        The loss is a copy, not a view: the pipeline schedule frees outputs and refuses to free a view.
        """
        unused = torch.zeros((), dtype=torch.int, device=forward_out.device)
        return forward_out[0].clone(), unused, {"vector": forward_out.detach()}

    def reduce(self, losses_reduced_per_micro_batch: Sequence[dict[str, Tensor]]) -> Tensor:
        """Loss vector of the global batch: summed over micro-batches and data-parallel ranks, in float64."""
        each = torch.stack([x["vector"].double() for x in losses_reduced_per_micro_batch])
        self.micro_losses = each[:, 0].clone()
        total = each.sum(0)
        torch.distributed.all_reduce(total, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
        return total


def sum_gradients(model: list[Any], num_tokens: Tensor | None = None, **kwargs: Any) -> None:
    """mcore's finalize_model_grads without its division by tokens: gradients are sums, as the loss is."""
    finalize_model_grads(model, None, **kwargs)
