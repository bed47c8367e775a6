"""The public functions of the loss: one takes logits, one hidden states; the kernel is picked by device.

    out = cross_entropy(logits, labels, weights, subset_ids, num_subsets, vocab_start=..., tp_group=...)
    out.loss.backward()

Both return the weighted sum of Eq. 6 with its per-subset sums and counts, never synchronise with the host (unless
``checks``), and give the same bits in every run. Under torch.compile they are a graph break: they overwrite the logits,
which functionalised graphs could only copy.

An output layer with a bias: the linear form takes it; for the logits' form the layer adds it, inside its product
(``torch.addmm(bias, hidden, weight.t())``), where it costs no pass over the logits, and autograd sums its gradient.

Letters in shapes: n rows (tokens of a micro-batch); V columns of the whole vocabulary, padding included; tp ranks that
share it; H hidden size.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor

from sdrrl_kernels.cross_entropy import CrossEntropy
from sdrrl_kernels.fused_linear_cross_entropy import LinearCrossEntropy, chunk_rows, main_gradient
from sdrrl_kernels.options import LOGIT_DTYPES, Backend, LossOptions, check_inputs, check_rows, check_values, is_bad
from sdrrl_kernels.reference import IGNORE_INDEX
from sdrrl_kernels.sequence_parallel import gather_sequence

KERNELS = ("auto", "triton", "fused_linear", "torch")
REDUCTIONS = ("sum", "none")


class LossOutput(NamedTuple):
    """What the loss returns; equal on every rank of the tensor-parallel group."""

    loss: Tensor
    """fp32 [] (reduction "sum") or [n] ("none"); the only entry with a gradient."""
    subset_sums: Tensor
    """fp32 [num_subsets], the weighted token losses of each subset: the addends of Eq. 6."""
    subset_counts: Tensor
    """int64 [num_subsets], tokens of each subset whose label is not ignored."""
    logsumexp: Tensor | None
    """fp32 [n], 0 in rows that are ignored or weigh 0; None where it was not asked for."""
    bad_labels: Tensor
    """bool [], on the device: whether a row that carries loss has a label outside the vocabulary (its loss is NaN)."""


def check_labels(out: LossOutput) -> None:
    """ValueError where a label was outside the vocabulary. Waits for the device, so call it where you wait anyway."""
    if bool(out.bad_labels):
        raise ValueError(
            "a label is neither a token of the vocabulary nor ignore_index, so the loss is NaN; "
            "compare the tokenizer of the labels with vocab_size, or pass checks=True to learn the row"
        )


def _bad_labels(labels: Tensor, weights: Tensor, o: LossOptions) -> Tensor:
    # of no rank at all, so every rank can tell without asking the others
    return is_bad(labels, weights, o, 1 if o.group is None else dist.get_world_size(o.group)).any()


def pick_backend(kernel: str, device: torch.device) -> Backend:
    """Module that implements ``kernel`` on ``device``; auto and fused_linear mean Triton on CUDA and torch elsewhere.

    Raises:
        ValueError: for an unknown name, or for triton where there is neither a GPU nor Triton's interpreter.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got '{kernel}'")
    # Imported only when picked: triton is not installed everywhere.
    use_triton = kernel == "triton" or (kernel != "torch" and device.type == "cuda")
    module = importlib.import_module(f"sdrrl_kernels.cross_entropy_{'triton' if use_triton else 'cpu'}")
    if use_triton and device.type != "cuda" and not module.interpreted():
        raise ValueError(f"kernel 'triton' needs a CUDA device, the tensors are on {device}; use 'auto' or 'torch'")
    return cast(Backend, module)


def _options(
    columns: int,
    vocab_start: int,
    vocab_size: int | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    tp_group: dist.ProcessGroup | None,
) -> LossOptions:
    """Check the options that need no tensor, and say which of this rank's ``columns`` are vocabulary.

    A group of one rank becomes None, so that the kernels ask a single question: is the row whole here or not.
    """
    world = dist.get_world_size(tp_group) if tp_group is not None else 1
    if not 0 <= label_smoothing < 1 or z_loss < 0:
        raise ValueError(f"label_smoothing must be in [0, 1) and z_loss >= 0, got {label_smoothing} and {z_loss}")
    if softcap is not None and not 0 < softcap < float("inf"):
        raise ValueError(f"softcap must be positive and finite, or None for no cap, got {softcap}")
    if vocab_start < 0 or (vocab_size is not None and vocab_size < 1):
        raise ValueError(f"vocab_start must be >= 0 and vocab_size >= 1, got {vocab_start} and {vocab_size}")
    return LossOptions(
        ignore_index=ignore_index,
        vocab_start=vocab_start,
        valid=columns if vocab_size is None else max(0, min(columns, vocab_size - vocab_start)),
        vocab_size=columns * world if vocab_size is None else vocab_size,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap or 0.0,
        group=tp_group if world > 1 else None,
    )


def _check_mode(reduction: str, expected_upstream: float | None) -> None:
    """ValueError where the reduction is unknown, or the gradient that is expected for it makes no sense."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got '{reduction}'")
    if expected_upstream is not None and not 0 < abs(expected_upstream) < float("inf"):
        raise ValueError(f"expected_upstream must be finite and not 0, got {expected_upstream}")
    if expected_upstream is not None and reduction == "none":
        raise ValueError("expected_upstream is one number; with reduction 'none' every token has its own")


@torch.compiler.disable
def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    subset_ids: Tensor,
    num_subsets: int,
    *,
    vocab_start: int = 0,
    vocab_size: int | None = None,
    ignore_index: int = IGNORE_INDEX,
    tp_group: dist.ProcessGroup | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "sum",
    return_logsumexp: bool = False,
    checks: bool = False,
    in_place: bool = True,
    expected_upstream: float | None = None,
    kernel: str = "auto",
) -> LossOutput:
    """Weighted cross-entropy over (a slice of) the logits; their buffer becomes their gradient in the backward pass.

    Args:
        logits: [n, V/tp] fp32, bf16 or fp16, this rank's slice of the vocabulary; rows contiguous, any row stride.
        labels: int64 or int32 [n], ids in the whole vocabulary, or ``ignore_index``.
        weights: fp32 [n], constants that multiply each token's loss. Weight 0 skips the row altogether.
        subset_ids: int64 or int32 [n] in [0, num_subsets); others count in no subset.
        vocab_start: first vocabulary id of this rank's slice.
        vocab_size: true vocabulary size; columns at or beyond it are padding, get no probability and gradient 0.
            None: no padding.
        tp_group: tensor-parallel group; None or size 1 means the whole vocabulary is here.
        softcap: c makes c * tanh(logit / c) of each logit first (Gemma 2's ``final_logit_softcapping``); ``logsumexp``
            is of the capped logits. Under ``expected_upstream`` loss and gradient are then two launches.
        reduction: "sum", or "none" for weighted token losses [n] that take one upstream gradient each.
        checks: look for labels, subsets and weights out of range; waits for the device.
        in_place: False keeps the logits and allocates a gradient (needed for a second backward pass); it is then made
            in the backward pass whatever ``expected_upstream`` says.
        expected_upstream: the gradient that will arrive at the loss, where it is known (1.0 for a bare ``backward()``).
            Loss and gradient are then made in one launch, in the forward pass, and another upstream gradient costs
            a second rounding. None: made in the backward pass, exact to one rounding for any upstream gradient.
            Under tensor parallelism the second plan is used in either case.

    Raises:
        ValueError: for wrong shapes, dtypes, devices or options, and with ``checks`` for values out of range.
    """
    check_inputs(logits, labels, weights, subset_ids)
    _check_mode(reduction, expected_upstream)
    o = _options(logits.shape[1], vocab_start, vocab_size, ignore_index, label_smoothing, z_loss, softcap, tp_group)
    if not torch.is_grad_enabled():
        logits = logits.detach()  # the node below would think that a gradient is wanted, and overwrite them
    if in_place and logits.is_leaf and logits.requires_grad:
        raise ValueError("logits are a leaf that requires a gradient, which would overwrite it; pass in_place=False")
    if checks:
        check_values(labels, weights, subset_ids, num_subsets, o)
    # Loss and gradient in one launch need the whole row: the gradient contains the row's softmax, which under tensor
    # parallelism is known only after the ranks have told each other their sums.
    one_launch = expected_upstream if o.group is None and in_place else None
    loss, sums, counts, lse = CrossEntropy.apply(
        logits,
        labels.contiguous(),
        weights.contiguous(),
        subset_ids.contiguous(),
        num_subsets,
        o,
        pick_backend(kernel, logits.device),
        reduction,
        return_logsumexp,
        in_place,
        one_launch,
    )
    return LossOutput(loss, sums, counts, lse if return_logsumexp else None, _bad_labels(labels, weights, o))


@torch.compiler.disable
def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    weights: Tensor,
    subset_ids: Tensor,
    num_subsets: int,
    *,
    bias: Tensor | None = None,
    vocab_start: int = 0,
    vocab_size: int | None = None,
    ignore_index: int = IGNORE_INDEX,
    tp_group: dist.ProcessGroup | None = None,
    sequence_parallel: bool = False,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "sum",
    return_logsumexp: bool = False,
    checks: bool = False,
    expected_upstream: float = 1.0,
    rows_per_chunk: int | None = None,
    chunk_mib: int | None = None,
    into_main_grad: bool = False,
    kernel: str = "auto",
) -> LossOutput:
    """:func:`cross_entropy` of ``hidden @ weight.T + bias`` without ever holding all logits.

    Projection, loss and both gradients are made for a few rows at a time, in the forward pass. That is why the gradient
    that will arrive must be known: there are no logits left to wait for it. (With reduction "none" it is not, and the
    backward pass computes the logits again.)

    Args:
        hidden: [n, H] fp32, bf16 or fp16; with ``sequence_parallel`` [n/tp, H], this rank's part of the rows.
        weight: [V/tp, H] of the same dtype, this rank's rows of the output embedding.
        bias: [V/tp] of the same dtype, this rank's part of the output layer's bias, or None. It is added inside the
            product, before the softcap; its gradient is summed in fp32 over all rows.
        sequence_parallel: gather ``hidden`` over ``tp_group`` first, and scatter its gradient back.
        rows_per_chunk: rows whose logits exist at a time; None: as many as fit ``chunk_mib``.
        chunk_mib: MiB of logits that may exist at a time, None: 512 on a GPU, 32 on a CPU; more where so few rows would
            make the products wait for memory (``fused_linear_cross_entropy.chunk_rows``).
        into_main_grad: add the gradients of weight and bias to their ``main_grad``, Megatron's sum, where there is one
            in fp32, as ``gradient_accumulation_fusion`` does, without a buffer and a rounding in between. With
            reduction "sum" that happens in the forward pass: each must have its backward pass, with
            ``expected_upstream`` (else ValueError, or NaN on a GPU).
        expected_upstream: the gradient that will arrive; another one costs a second rounding (reduction "sum").

    The gradient of ``hidden`` is summed over ``tp_group`` in here; those of ``weight`` and ``bias`` are this rank's.
    Other arguments, results and errors as for :func:`cross_entropy`.
    """
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"hidden must be [n, H] and weight [V/tp, H], got {tuple(hidden.shape)}, {tuple(weight.shape)}"
        )
    if hidden.dtype not in LOGIT_DTYPES or weight.dtype != hidden.dtype or weight.device != hidden.device:
        raise ValueError(
            "hidden and weight must share a device and one of fp32, bf16, fp16, "
            f"got {hidden.dtype} on {hidden.device} and {weight.dtype} on {weight.device}"
        )
    if bias is not None and (bias.shape, bias.dtype, bias.device) != (weight.shape[:1], weight.dtype, weight.device):
        raise ValueError(
            f"bias must be [{weight.shape[0]}] {weight.dtype} on {weight.device} like the rows of weight, "
            f"got {tuple(bias.shape)} {bias.dtype} on {bias.device}"
        )
    _check_mode(reduction, expected_upstream if reduction == "sum" else None)
    o = _options(weight.shape[0], vocab_start, vocab_size, ignore_index, label_smoothing, z_loss, softcap, tp_group)
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()  # the node below would make gradients that nobody takes
        bias = None if bias is None else bias.detach()
    # Before the autograd node, which needs all rows of its chunk; the gather is differentiable by itself.
    if sequence_parallel and o.group is not None:
        hidden = gather_sequence(hidden, o.group)
    check_rows(hidden.shape[0], "hidden", hidden.device, labels, weights, subset_ids)
    if checks:
        check_values(labels, weights, subset_ids, num_subsets, o)
    loss, sums, counts, lse = LinearCrossEntropy.apply(
        hidden,
        weight,
        bias,
        labels.contiguous(),
        weights.contiguous(),
        subset_ids.contiguous(),
        num_subsets,
        o,
        pick_backend("auto" if kernel == "fused_linear" else kernel, hidden.device),
        reduction,
        return_logsumexp,
        expected_upstream,
        _chunk_rows(hidden, weight, rows_per_chunk, chunk_mib, into_main_grad),
        into_main_grad,
    )
    return LossOutput(loss, sums, counts, lse if return_logsumexp else None, _bad_labels(labels, weights, o))


def _chunk_rows(hidden: Tensor, weight: Tensor, rows: int | None, mib: int | None, into_main: bool) -> int:
    """Rows a chunk of this call, at least 1."""
    if rows is not None:
        return max(1, rows)
    # several chunks add up in fp32, of which a gradient in fp32 and one that goes elsewhere need no buffer
    buffer = (
        weight.requires_grad and weight.element_size() < 4 and not (into_main and main_gradient(weight) is not None)
    )
    (n, width), columns = hidden.shape, weight.shape[0]
    return chunk_rows(n, columns, hidden.element_size(), hidden.device.type, mib, width if buffer else 0)
