"""Which rows a step sees, and how rows become a micro-batch with the constant weights of Eq. 6.

A row is a pack (``packed=True``) or one sample. The order is a function of (seed, epoch) alone and a global batch is
a function of (order, step) alone, so layout, micro-batch size and resume cannot change what a step is made of.

Letters: S steps in an epoch; d a subset of the transfer set and |D_d| its number of samples; L tokens in a row
(``seq_length``). A global batch is the rows of one optimiser step; a micro-batch is what one rank computes at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from sdrrl_kernels.reference import IGNORE_INDEX
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.seeding import named_generator
from sdrrl_nemo.data.packing.packed import PackedSamples
from sdrrl_nemo.model.context_parallel import counted, granularity, positions

PAD = -1
"""Stands for no row: an epoch's last batch is filled up with it, and every token of it has weight 0."""


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Permutation of the rows in an epoch, int64 [rows]; cached, because every step asks for its part twice."""
    return named_generator(seed, "order", epoch).permutation(rows)


@dataclass(frozen=True)
class Schedule:
    """Row numbers of every step. ``rows``: rows of the set; a short last batch of an epoch is filled with PAD."""

    rows: int
    global_batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """S of the weights: steps that see every row once."""
        return math.ceil(self.rows / self.global_batch_size)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Rows of an epoch in their order, int64 [rows]."""
        return _order(self.rows, self.seed, epoch)

    def batch(self, step: int) -> npt.NDArray[np.int64]:
        """Rows of global step ``step`` (from 0), int64 [global_batch_size]."""
        epoch, i = divmod(step, self.steps_per_epoch)
        # Padded, not filled from the next epoch: so an epoch sees every row exactly once, which Eq. 6 asks for.
        chunk = self.order(epoch)[i * self.global_batch_size : (i + 1) * self.global_batch_size]
        return np.pad(chunk, (0, self.global_batch_size - len(chunk)), constant_values=PAD)


@dataclass(frozen=True)
class Mixture:
    """What a run makes of Eq. 6 where subsets are not to count alike, or rows not to come once an epoch.

    ``objective``: lambda_d of each subset, float64 [subsets]. ``steps_a_draw``: steps that come on one draw of each
    sample, float64 [samples], 0 for one that is never drawn; None: every sample comes once an epoch. ``record``: of a
    blend, what the run's folder says of it.
    """

    objective: npt.NDArray[np.float64]
    steps_a_draw: npt.NDArray[np.float64] | None = None
    record: dict[str, Any] | None = None


def sample_weights(
    dataset: PackedSamples,
    reduction: str,
    steps_per_epoch: int,
    normalise: str = "sum",
    mixture: Mixture | None = None,
) -> npt.NDArray[np.float64]:
    """Weight of each answer token of each sample, float64 [samples].

    With these weights the mean of an epoch's step losses is Eq. 6, whatever is in a step. ``reduction`` says what l_CE
    of a sample is:

        mean   its tokens' mean:                       w = S / (|D_d| * answer tokens of the sample)
        sum    its tokens' sum:                        w = S / |D_d|
        token  subset mean over all answer tokens:     w = S / (answer tokens of D_d)
        step   no Eq. 6 but ordinary fine-tuning:      w = 1, divided by the answer tokens of the step (``scale``)

    ``normalise`` ``mean`` divides the first three by the number of subsets that have samples.

    Of a ``mixture``, w is multiplied by lambda_d, and S is divided by how often the sample is drawn in S steps; with
    weights w_i of the samples it is multiplied by w_i, and |D_d| becomes their sum over D_d. D_d are the samples that
    are drawn at all. ``normalise`` ``mean`` divides by the sum of lambda_d. SdrrlError for another reduction.
    """
    # Constants of the run, not of the step: a step sees a few samples of a few subsets, and a mean over what it happens
    # to see would weigh a sample by its company. S undoes the division by S when the step losses are averaged.
    answer = dataset.answer_tokens.astype(np.float64)
    of = dataset.subset
    own = np.ones(len(answer)) if dataset.sample_weight is None else dataset.sample_weight
    if reduction == "step":
        return own.copy()
    mixture = mixture or Mixture(np.ones(len(dataset.subset_names)))
    steps = mixture.steps_a_draw
    drawn = own if steps is None else own * (steps > 0)
    size = np.bincount(of, weights=drawn, minlength=len(dataset.subset_names))
    divisor = float(mixture.objective[size > 0].sum()) if normalise == "mean" else 1.0
    total = (steps_per_epoch if steps is None else steps) / divisor * mixture.objective[of] * own
    if reduction == "token":
        size = np.bincount(of, weights=answer * drawn, minlength=len(size))
    size[size == 0] = 1.0  # a subset of which nothing is drawn: its total is 0
    if reduction == "mean":
        return np.asarray(total / (size[of] * answer))
    if reduction in ("sum", "token"):
        return np.asarray(total / size[of])
    raise SdrrlError(f"loss.sample_reduction: '{reduction}' is not one of mean, sum, token, step")


class MicroBatches:
    """Builds micro-batches: [micro_batch_size, L], or with packed rows laid end to end [1, micro_batch_size * L].

    Under context parallelism every sample is padded to a multiple of 2 * context_parallel_size, and L grows by what
    the fullest pack needs for that. ``row_multiple`` (tensor-parallel size under sequence parallelism) divides the
    tokens a rank holds; ``seq_length`` asks for rows at least that long.
    """

    def __init__(
        self,
        dataset: PackedSamples,
        *,
        packed: bool,
        micro_batch_size: int,
        reduction: str,
        schedule: Schedule,
        context_parallel_size: int = 1,
        row_multiple: int = 1,
        seq_length: int = 0,
        normalise: str = "sum",
        mixture: Mixture | None = None,
    ) -> None:
        self.dataset = dataset
        self.mixture = mixture
        self.packed = packed
        self.micro_batch_size = micro_batch_size
        self.schedule = schedule
        self.context_parallel_size = context_parallel_size
        self.granularity = granularity(context_parallel_size)
        whole = self.granularity * row_multiple
        self.seq_length = _up(max(int(dataset.manifest["seq_length"]), self._fullest_pack(), seq_length), whole)
        self.weights = sample_weights(dataset, reduction, schedule.steps_per_epoch, normalise, mixture)
        self.by_step = reduction == "step"

    def _fullest_pack(self) -> int:
        """Tokens of the fullest pack once every sample is padded for context parallelism.

        A row of one sample needs no look: no sample is longer than the set's seq_length, which is rounded up alike.
        """
        if self.granularity == 1 or not self.packed:
            return 0
        padded = _up(self.dataset.lengths.astype(np.int64), self.granularity)
        return max(int(padded[self.dataset.samples_of(i)].sum()) for i in range(len(self.dataset)))

    @staticmethod
    def row_count(dataset: PackedSamples, packed: bool) -> int:
        """Rows of the set: packs or samples."""
        return len(dataset) if packed else len(dataset.lengths)

    @property
    def row_shape(self) -> tuple[int, int]:
        """(rows, tokens per row) of the tensors the model sees."""
        if self.packed:
            return 1, self.micro_batch_size * self.seq_length
        return self.micro_batch_size, self.seq_length

    def samples_of_row(self, row: int) -> range:
        """Sample numbers of a row."""
        if row == PAD:
            return range(0)
        return self.dataset.samples_of(row) if self.packed else range(row, row + 1)

    def samples_of_step(self, step: int) -> npt.NDArray[np.int64]:
        """Sample numbers of the global batch of ``step``, in order, int64 [samples]."""
        return _numbers([self.samples_of_row(int(row)) for row in self.schedule.batch(step)])

    def useful_tokens(self, step: int) -> int:
        """Question and answer tokens in the global batch of ``step``, padding not counted."""
        return int(self.dataset.lengths[self.samples_of_step(step)].sum())

    def live_share(self, step: int) -> float:
        """Share of the rows of ``step`` that carry loss, padding counted: the others are not projected."""
        rows, length = self.schedule.global_batch_size, self.row_shape[0] * self.row_shape[1] // self.micro_batch_size
        return int(self.dataset.answer_tokens[self.samples_of_step(step)].sum()) / (rows * length)

    def scale(self, step: int) -> float:
        """Factor on the weights of ``step``: 1, or with the ``step`` reduction 1 / answer tokens of the whole step,
        which count as their samples weigh."""
        if not self.by_step:
            return 1.0
        samples = self.samples_of_step(step)
        return 1.0 / float(self.weights[samples] @ self.dataset.answer_tokens[samples])

    def a_step(self, values: npt.NDArray[Any]) -> float:
        """Sum of ``values`` [samples] over the samples of a step, mean over the steps."""
        steps = self.mixture.steps_a_draw if self.mixture else None
        if steps is None:
            return float(values.sum()) / self.schedule.steps_per_epoch
        drawn = steps > 0
        return float((values[drawn] / steps[drawn]).sum())

    def step_weight(self) -> float:
        """Weight that the answer tokens of a step carry together, mean over the epoch; a mean over tokens has 1.

        The number of subsets that have samples, or the sum of their lambda_d; 1 under ``normalise`` ``mean``. With the
        ``sum`` reduction an answer counts by its length, so each subset adds its mean answer length. In six digits:
        sums differ in their last bits.
        """
        if self.by_step:
            return 1.0
        return float(f"{self.a_step(self.weights * self.dataset.answer_tokens):.6g}")

    def keys(self, step: int, dp_rank: int, dp_size: int, micro: int) -> list[str]:
        """Keys (16 hexadecimal digits) of the samples of one micro-batch."""
        rows = self.schedule.batch(step).reshape(-1, dp_size, self.micro_batch_size)[micro, dp_rank]
        return [f"{int(self.dataset.sample_key[i]):016x}" for row in rows for i in self.samples_of_row(int(row))]

    def build(self, rows: npt.NDArray[np.int64], scale: float = 1.0) -> dict[str, Tensor]:
        """Tensors of the micro-batch that ``rows`` (int64 [micro_batch_size]) make.

        All of ``row_shape``: tokens, labels, subset_ids and position_ids int64, weights fp32 (times ``scale``). With
        packed rows also cu_seqlens int32 [sequences + 1], the boundaries of every sample and of the padding behind
        them, and max_seqlen int32 [].

        A label is the next token of the same sample, so the last position has none. Questions have no labels either.
        """
        b, length = self.row_shape
        spans = [self.samples_of_row(int(row)) for row in rows]
        chosen = _numbers(spans)
        sizes = self.dataset.lengths[chosen]
        padded = _up(sizes, self.granularity)
        begins = np.cumsum(padded) - padded if self.packed else np.flatnonzero(rows != PAD) * length
        within = counted(sizes)
        places = np.repeat(begins, sizes) + within
        tokens, answer = self._read(spans)
        # Shifted here, not in the model: packed samples lie end to end, and a shift over the whole row would let the
        # last token of one sample predict the first of the next.
        target = np.zeros(len(tokens), bool)
        target[:-1] = answer[1:] == 1
        target[np.cumsum(sizes) - 1] = False
        labelled = places[target]
        out: dict[str, Any] = {k: np.zeros(b * length, np.int64) for k in ("tokens", "subset_ids", "position_ids")}
        out["labels"] = np.full(b * length, IGNORE_INDEX, np.int64)
        out["weights"] = np.zeros(b * length, np.float32)
        out["tokens"][places] = tokens
        out["subset_ids"][places] = np.repeat(self.dataset.subset[chosen], sizes)
        out["position_ids"][places] = within
        out["labels"][labelled] = tokens[1:][target[:-1]]
        out["weights"][labelled] = np.repeat(self.weights[chosen].astype(np.float32), sizes)[target]
        if scale != 1.0:
            out["weights"] *= np.float32(scale)
        out = {k: v.reshape(b, length) for k, v in out.items()}
        if self.packed:
            out |= self._sequences(np.cumsum(padded), out["position_ids"][0])
        return {k: torch.from_numpy(v) for k, v in out.items()}

    def _read(self, spans: list[range]) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """Token ids [n] of the samples of ``spans``, one behind the other, and their loss masks [n]."""
        parts = [self.dataset.span(samples) for samples in spans if samples]
        if not parts:
            return np.zeros(0, np.int64), np.zeros(0, np.uint8)
        return np.concatenate([t for t, _ in parts]), np.concatenate([m for _, m in parts])

    def _sequences(self, ends: npt.NDArray[np.int64], position_ids: npt.NDArray[np.int64]) -> dict[str, Any]:
        """cu_seqlens and max_seqlen of a packed row whose samples end at ``ends``; the padding behind them is a
        sequence of its own, so that no sample attends to it, and gets its ``position_ids`` here."""
        length, used = len(position_ids), int(ends[-1]) if len(ends) else 0
        position_ids[used:] = np.arange(length - used)
        bounds = np.concatenate([[0], ends, [length] if used < length else []]).astype(np.int32)
        return {"cu_seqlens": bounds, "max_seqlen": np.asarray(np.diff(bounds).max(), np.int32)}


def _numbers(spans: list[range]) -> npt.NDArray[np.int64]:
    """The numbers of ``spans``, one behind the other, int64."""
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(s.start, s.stop) for s in spans)])


def _up(length: Any, multiple: int) -> Any:
    """``length`` (an integer or an array) rounded up to a multiple."""
    return -(-length // multiple) * multiple


def live_rows(labels: Tensor, weights: Tensor) -> Tensor:
    """Which tokens of [B, L] carry loss: int64 numbers s * B + b, ascending, for Megatron has the sequence first."""
    return ((labels != IGNORE_INDEX) & (weights != 0)).t().reshape(-1).nonzero().flatten()


def on_this_rank(batch: dict[str, Tensor], cp_size: int, cp_rank: int) -> dict[str, Tensor]:
    """The tokens of a micro-batch that one context-parallel rank holds; cu_seqlens stay those of all ranks."""
    if cp_size == 1:
        return batch
    bounds = batch["cu_seqlens"].tolist() if "cu_seqlens" in batch else [0, batch["tokens"].shape[1]]
    held = torch.from_numpy(positions(bounds, cp_size, cp_rank))
    return {k: v.index_select(1, held) if v.dim() == 2 else v for k, v in batch.items()}


class MicroBatchStream(IterableDataset[dict[str, Tensor]]):
    """Endless stream of this data-parallel rank's micro-batches from global step ``first_step`` on, with ``live``, the
    rows that carry loss.

    The trainer stops after its last step; the stream knows no end, because step numbers go on over epochs.
    """

    def __init__(self, batches: MicroBatches, first_step: int, dp_rank: int, dp_size: int, cp_rank: int = 0) -> None:
        self.cp_rank = cp_rank
        self.batches = batches
        self.first_step = first_step
        self.dp_rank = dp_rank
        self.dp_size = dp_size

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        m = self.batches.micro_batch_size
        step = self.first_step
        while True:
            # [micro-batches, data-parallel ranks, rows]: the set of rows in a step is the same for any dp_size and m.
            rows = self.batches.schedule.batch(step).reshape(-1, self.dp_size, m)
            scale = self.batches.scale(step)
            for micro in rows:
                batch = self.batches.build(micro[self.dp_rank], scale)
                mine = on_this_rank(batch, self.batches.context_parallel_size, self.cp_rank)
                yield mine | {"live": live_rows(mine["labels"], mine["weights"])}
            step += 1
