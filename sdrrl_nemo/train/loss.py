"""Eq. 6 inside the model: the last pipeline stage returns the weighted loss and its split by subset, not logits.

The constant weights (``batches.sample_weights``) make the loss a plain sum: over tokens, micro-batches and
data-parallel ranks. Nothing may divide it, or a sample would count by what else is in its step. Megatron has two
divisions: ``calculate_per_token_loss`` (model/provider.py) switches off the one by micro-batches, ``sum_gradients`` the
one by tokens.

Letters in shapes: b rows, s tokens in a row, h hidden size, v columns of the vocabulary that this rank holds.
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
from sdrrl_kernels.live_rows import select_rows
from sdrrl_kernels.sequence_parallel import gather_sequence
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.megatron import project_rows_of_all_ranks, replace_loss, replace_output_forward
from sdrrl_nemo.train.config import LossSettings


def loss_names(subset_names: Sequence[str]) -> tuple[str, ...]:
    """Names of the entries of a loss vector [1 + subsets]: the total, then the addend of each subset in Eq. 6."""
    return ("loss", *(f"loss_{d}" for d in subset_names))


class LossInputs(NamedTuple):
    """What the last stage needs beside the hidden states.

    It takes the place of Megatron's ``labels`` argument, which the model hands to its loss without a look at it.
    """

    labels: Tensor
    """int64 [b, s]."""
    weights: Tensor
    """fp32 [b, s]."""
    subset_ids: Tensor
    """int64 [b, s]."""
    live: Tensor
    """int64 [rows that carry loss], numbers of rows of the hidden states, which have the sequence first: s * B + b of B
    rows (``batches.live_rows``)."""


def check_kernel(kernel: str, device: torch.device) -> None:
    """SdrrlError when ``loss.kernel`` cannot run on ``device``; called before anything is loaded."""
    try:
        pick_backend(kernel, device)
    except (ValueError, ImportError) as e:
        raise SdrrlError(f"loss.kernel: {e}") from None


class LabelFlag:
    """Whether a label outside the vocabulary was met: noted on the device, read where a step is waited for anyway."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self._met: Tensor | None = None

    def note(self, bad: Tensor) -> None:
        """Remember ``bad`` (bool []) of one micro-batch, without waiting for the device."""
        self._met = bad if self._met is None else self._met | bad

    def require_none(self, step: int) -> None:
        """SdrrlError on all ranks where one has met such a label, by ``step`` (from 1) at the latest; all call this."""
        met = [False] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(met, self._met is not None and bool(self._met))
        if any(met):
            raise SdrrlError(
                f"step {step} at the latest: a label is outside the vocabulary of {self.tokens} tokens, so the loss is "
                "NaN; check that the packed set was made with the tokenizer of model.hf_path and is undamaged, "
                "or pack it again"
            )


def attach_loss(
    model: Any, tokens: int, num_subsets: int, settings: LossSettings, labels: LabelFlag | None = None
) -> None:
    """Make a GPTModel of megatron-core compute the loss vector fp32 [1 + num_subsets] in place of per-token losses.

    Only the rows that carry loss are projected onto the vocabulary. Such a model has no logits to give; it is for
    training.

    Args:
        model: this rank's part of the model; a part without the output layer is left as it is.
        tokens: ids of the tokenizer. Columns beyond them get no probability, be they rows of the published model that
            no token has, or padding; so their rows get no gradient.
        settings: kernel, label smoothing and z-loss. With ``fused_linear`` projection and loss are one function in
            chunks of rows, so the logits of a micro-batch never exist at once.
        labels: told of labels outside the vocabulary.
    """
    # Patched into the model, not applied to its output: given labels, a GPTModel returns mcore's own cross-entropy;
    # given none, it first copies the logits, the largest tensor there is.
    if not model.post_process:
        return
    project = _Projection(model.output_layer)

    def compute(inputs: LossInputs, hidden: Tensor) -> Tensor:
        group = parallel_state.get_tensor_model_parallel_group()
        if model.config.sequence_parallel:
            hidden = gather_sequence(hidden, group)
        # [s * b]: mcore keeps the sequence first, so this is the order of the rows of hidden states
        rows = select_rows(hidden.reshape(-1, hidden.shape[-1]), inputs.live)
        of_rows = [t.transpose(0, 1).reshape(-1).index_select(0, inputs.live) for t in inputs[:3]]
        weight = project.weight
        common: dict[str, Any] = {
            "vocab_start": parallel_state.get_tensor_model_parallel_rank() * weight.shape[0],
            "vocab_size": tokens,
            "tp_group": group,
            "label_smoothing": settings.label_smoothing,
            "z_loss": settings.z_loss,
            # nothing scales the loss on its way to the backward pass (Eq6LossReduction), so its gradient is 1
            "expected_upstream": 1.0,
            "kernel": settings.kernel,
        }
        out: LossOutput
        if settings.kernel == "fused_linear":
            # the weight's gradient goes where DistributedDataParallel would add it, without a copy of its size
            more = {"chunk_mib": settings.chunk_mib, "into_main_grad": True, "bias": model.output_layer.bias}
            out = linear_cross_entropy(rows, weight, *of_rows, num_subsets, **common, **more)
        else:
            out = cross_entropy(project(rows), *of_rows, num_subsets, **common)
        if labels is not None:
            labels.note(out.bad_labels)
        return torch.cat([out.loss[None], out.subset_sums])

    replace_loss(model, compute)


class _Projection:
    """An output layer that hands its input through when the model calls it, and projects rows when the loss does."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._weight: Tensor | None = None
        self._project = replace_output_forward(layer, self._hand_through)
        project_rows_of_all_ranks(layer)

    @property
    def weight(self) -> Tensor:
        """[v, h], of the latest call: a tied model hands its embedding to an output layer that has none."""
        return self._layer.weight if self._weight is None else self._weight

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, h], the same on all tensor-parallel ranks -> logits [n, v]; the gradient of ``rows`` is that of all."""
        logits, _ = self._project(rows[:, None], weight=self._weight)
        return logits[:, 0]

    def _hand_through(self, input_: Tensor, weight: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
        self._weight = weight
        return input_, None


class Eq6LossReduction(MegatronLossReduction):  # type: ignore[misc]
    """Hands each micro-batch's loss to Megatron's schedule undivided, and sums the loss vectors of a step."""

    micro_losses: Tensor | None = None
    """Loss of each micro-batch of the latest step on this rank, float64 [micro-batches]; last pipeline stage only."""

    def forward(self, batch: Any, forward_out: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Split what ``forward_step`` returned into (loss [], token count, {"vector": loss vector [1 + subsets]}).

        Megatron asks for the token count but uses it only in the division that ``sum_gradients`` leaves out, so it
        is 0. The loss is a copy, not a view: the pipeline schedule frees outputs and refuses to free a view.
        """
        unused = torch.zeros((), dtype=torch.int, device=forward_out.device)
        return forward_out[0].clone(), unused, {"vector": forward_out.detach()}

    def reduce(self, losses_reduced_per_micro_batch: Sequence[dict[str, Tensor]]) -> Tensor:
        """Loss vector of the global batch, float64 [1 + subsets], summed over micro-batches and data-parallel ranks.

        Context-parallel ranks hold different tokens of the same rows, so they are summed over as well.
        """
        each = torch.stack([x["vector"].double() for x in losses_reduced_per_micro_batch])
        self.micro_losses = each[:, 0].clone()
        total = each.sum(0)
        torch.distributed.all_reduce(total, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
        return total


def sum_gradients(model: list[Any], num_tokens: Tensor | None = None, **kwargs: Any) -> None:
    """Reduce the gradients over the ranks as megatron-core does, without its division by tokens.

    Gradients are sums, as the loss is. ``num_tokens`` is what ``Eq6LossReduction.forward`` counted, and not used.
    """
    # None in place of num_tokens is what switches the division off; all-reduces of norms and tied embeddings remain.
    finalize_model_grads(model, None, **kwargs)
