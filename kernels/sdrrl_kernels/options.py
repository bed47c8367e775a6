"""What every kernel of the loss agrees on: options, checks of the input, and the protocol of a backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

LOGIT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class LossOptions:
    """Constants of one call; a rank holds ``logits.shape[1]`` columns, its slice of the padded vocabulary.

    ``valid``: leading columns of the slice that are vocabulary; the rest is padding, without probability or gradient.
    ``vocab_size``: true size of the whole vocabulary, the K of label smoothing.
    ``label_smoothing`` e: target (1-e) one-hot + e/K, as torch.nn.functional.cross_entropy.
    ``z_loss`` z: adds z * logsumexp**2 to a token's loss (PaLM, section 5), weighted like the rest of it.
    ``softcap`` c: a logit x becomes c * tanh(x / c) before all else (Gemma 2); 0: none.
    """

    ignore_index: int
    vocab_start: int
    valid: int
    vocab_size: int
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float = 0.0
    group: dist.ProcessGroup | None = None

    @property
    def statistics(self) -> int:
        """Numbers a rank has to tell the others per row: maximum, sum of exponentials, label logit[, sum of logits]."""
        return 4 if self.label_smoothing else 3


class Totals(NamedTuple):
    """Weighted sum of all token losses, its split by subset, and the tokens counted in each subset."""

    loss: Tensor
    subset_sums: Tensor
    subset_counts: Tensor


class Backend(Protocol):
    """The steps of the loss. Rows of an ignored label or of weight 0 are skipped: loss 0, gradient 0, logits not read.
    The loss of a row whose label is of no rank is NaN; its gradient lacks the label's term.

    Shapes: logits [n, columns]; labels int64 [n]; weights fp32 [n]; row_max, row_sum fp32 [n] with
    softmax = exp(logits - row_max) / row_sum. They are kept apart, not as one logsumexp: at logits around 1e4 an fp32
    logsumexp is off by 5e-4, and so is every probability made from it.
    """

    def statistics(self, logits: Tensor, labels: Tensor, weights: Tensor, o: LossOptions) -> Tensor:
        """One read of the logits -> this rank's [o.statistics, n]."""

    def finish(self, parts: Tensor, labels: Tensor, weights: Tensor, o: LossOptions) -> tuple[Tensor, Tensor, Tensor]:
        """Statistics of all ranks [world, o.statistics, n] -> (weighted token loss [n], row_max, row_sum)."""

    def gradient(
        self,
        logits: Tensor,
        out: Tensor,
        labels: Tensor,
        weights: Tensor,
        upstream: Tensor,
        row_max: Tensor,
        row_sum: Tensor,
        o: LossOptions,
    ) -> None:
        """out (may be logits) = weight * upstream * d(token loss)/d(logits), rounded once. upstream: [] or [n]."""

    def one_pass(
        self, logits: Tensor, labels: Tensor, weights: Tensor, upstream: float, o: LossOptions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """statistics + finish + gradient in place, for one rank and an upstream gradient known beforehand."""

    def totals(self, token: Tensor, labels: Tensor, subset_ids: Tensor, num_subsets: int, ignore_index: int) -> Totals:
        """Sums in float64, in a fixed order."""

    def rescale(self, gradient: Tensor, upstream: Tensor, expected: float) -> None:
        """gradient *= upstream / expected, without a host sync; nothing is touched where they are equal."""


def check_inputs(logits: Tensor, labels: Tensor, weights: Tensor, subset_ids: Tensor) -> None:
    """Shapes, dtypes and devices; reads no element, so it costs no device time."""
    if logits.dim() != 2 or logits.dtype not in LOGIT_DTYPES:
        raise ValueError(f"logits must be [n, V/tp] fp32, bf16 or fp16, got {tuple(logits.shape)} {logits.dtype}")
    if logits.shape[1] > 1 and logits.stride(1) != 1:
        raise ValueError(f"a row of logits must be contiguous (any row stride will do), got strides {logits.stride()}")
    check_rows(logits.shape[0], "logits", logits.device, labels, weights, subset_ids)


def check_rows(n: int, owner: str, device: torch.device, labels: Tensor, weights: Tensor, subset_ids: Tensor) -> None:
    """The three per-token tensors fit ``n`` rows."""
    for name, t, dtypes in (
        ("labels", labels, (torch.int64, torch.int32)),
        ("weights", weights, (torch.float32,)),
        ("subset_ids", subset_ids, (torch.int64, torch.int32)),
    ):
        if t.shape != (n,):
            raise ValueError(f"{name} must have shape [{n}] like the rows of {owner}, got {tuple(t.shape)}")
        if t.dtype not in dtypes:
            wanted = "fp32" if name == "weights" else "int64 or int32"
            raise ValueError(f"{name} must be {wanted}, got {t.dtype}")
        if t.device != device:
            raise ValueError(f"{name} is on {t.device}, {owner} is on {device}")


def label_range(o: LossOptions, world: int) -> tuple[int, int]:
    """[low, high) of the labels that are a column of one of the ``world`` ranks; one rank alone has its slice."""
    return (0, o.vocab_size) if world > 1 else (o.vocab_start, o.vocab_start + o.valid)


def is_bad(labels: Tensor, weights: Tensor, o: LossOptions, world: int) -> Tensor:
    """bool [n]: rows that carry loss and whose label is of no rank. Their loss is NaN."""
    low, high = label_range(o, world)
    return (labels != o.ignore_index) & (weights != 0) & ((labels < low) | (labels >= high))


def check_values(labels: Tensor, weights: Tensor, subset_ids: Tensor, num_subsets: int, o: LossOptions) -> None:
    """Labels, subsets and weights in range; reads them back to the host, hence only on demand (``checks=True``)."""
    kept = labels != o.ignore_index
    _no_row(kept & ((labels < 0) | (labels >= o.vocab_size)), labels, f"label outside [0, {o.vocab_size})")
    _no_row(
        kept & ((subset_ids < 0) | (subset_ids >= num_subsets)), subset_ids, f"subset id outside [0, {num_subsets})"
    )
    _no_row(kept & ~torch.isfinite(weights), weights, "weight that is not finite")


def _no_row(bad: Tensor, values: Tensor, what: str) -> None:
    rows = bad.nonzero().flatten()
    if rows.numel():
        raise ValueError(f"{what} in {rows.numel()} row(s), first in row {int(rows[0])}: {values[rows[0]].item()}")


def exchange(part: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """[k, n] of this rank -> [world, k, n], by the one collective that the loss needs."""
    if group is None:
        return part[None]
    world = dist.get_world_size(group)
    gathered = part.new_empty((world, *part.shape))
    dist.all_gather_into_tensor(gathered.view(-1), part.reshape(-1), group=group)
    return gathered
