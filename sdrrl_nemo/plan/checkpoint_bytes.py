"""Bytes that a rank writes into a checkpoint and reads back, and what both hold in memory meanwhile.

A checkpoint has every parameter's weight, and of trained ones master weight and moments. Of replicas one writes each
tensor, and at a load one reads it and sends it to the others (megatron-core's fully parallel strategies over the
data-parallel ranks, context-parallel ones included); with the distributed optimiser a rank writes and reads the flat
slices of the state that it holds (``fully_sharded_model_space``), and nothing of the state is sent.
"""

from __future__ import annotations

from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.plan.layout import Build, Layout
from sdrrl_nemo.plan.memory import FP32, MOMENTS, stage_parameters, trained_parameters


def saved_bytes(shape: ModelShape, layout: Layout, build: Build, stage: int) -> float:
    """What a rank of pipeline stage ``stage`` writes into a checkpoint, and holds in host memory while it does.

    Weights, fp32 masters and moments, each byte written by one of the data-parallel ranks; on a GPU nothing is added,
    for nothing is gathered (train/strategy.py). In fp32 the distributed optimiser writes its copy of the weights too.
    """
    trained = trained_parameters(shape, layout, build, stage)
    if shape.tied and 0 < stage == layout.pp - 1 and not build.adapters:
        trained -= shape.vocabulary * shape.hidden / layout.tp  # the first stage writes the embedding both use
    copied = build.width != FP32 or build.distributed_optimizer
    each = build.width + MOMENTS + (FP32 if copied else 0)
    return trained * each / (layout.dp * layout.cp)


def loaded_bytes(shape: ModelShape, layout: Layout, build: Build, stage: int) -> float:
    """What reading a checkpoint holds on a rank of stage ``stage`` beside weights, gradients and optimiser.

    It is gone before the first step, so it stands where activations will. Megatron reads into the run's own tensors,
    but for the gate and up projections, which it joins, and for what another of the replicas reads and sends.
    """
    trained = trained_parameters(shape, layout, build, stage)
    joined = 0.0 if build.adapters else 2 * shape.hidden * shape.feed_forward * shape.layers / (layout.pp * layout.tp)
    replicas = layout.dp * layout.cp
    sliced = replicas if build.distributed_optimizer else 1
    master = FP32 if build.width != FP32 or build.distributed_optimizer else 0
    state = master + MOMENTS
    sent = (1 - 1 / replicas) * (trained - joined) * (build.width + (0 if build.distributed_optimizer else state))
    return joined * (build.width + state / sliced) + sent


def checkpoint_bytes(shape: ModelShape, layout: Layout, build: Build) -> float:
    """A whole checkpoint: of all ranks together."""
    ranks = layout.gpus // layout.pp
    return sum(saved_bytes(shape, layout, build, stage) for stage in range(layout.pp)) * ranks


def read_bytes(shape: ModelShape, layout: Layout, build: Build, stage: int) -> float:
    """What a rank of stage ``stage`` reads of a checkpoint that its own layout wrote: as much as it wrote, and where a
    tied embedding is on two stages both read it.

    Of another layout's checkpoint more: files are read in the pieces that were written, whole.
    """
    trained = trained_parameters(shape, layout, build, stage)
    copied = build.width != FP32 or build.distributed_optimizer
    each = build.width + MOMENTS + (FP32 if copied else 0)
    return trained * each / (layout.dp * layout.cp)


def read_host_bytes(shape: ModelShape, layout: Layout, build: Build) -> float:
    """Host memory that reading takes at a time on a rank: the largest tensor, in fp32, until it is where it belongs."""
    if build.adapters:
        return FP32 * build.adapters / layout.tp
    largest = max(shape.vocabulary, shape.feed_forward) * shape.hidden / layout.tp
    if build.distributed_optimizer:
        largest = min(largest, max(stage_parameters(shape, layout, s) for s in (0, layout.pp - 1)) / layout.dp)
    return FP32 * largest


def start_read_bytes(shape: ModelShape, layout: Layout, stage: int, width: int) -> float:
    """What a rank of stage ``stage`` reads of a Hugging Face folder whose weights have ``width`` bytes: every tensor
    that it has a part of, whole, whatever TP is. ``shape``: true sizes."""
    return width * stage_parameters(shape, Layout(pp=layout.pp), stage)


def start_host_bytes(shape: ModelShape, width: int) -> float:
    """Host memory that this takes at a time, whatever TP is: gate, up and both joined, or the embedding and a copy with
    its padding. On a GPU nothing beside the model itself."""
    return width * max(4.0 * shape.feed_forward, 2.0 * shape.vocabulary) * shape.hidden
