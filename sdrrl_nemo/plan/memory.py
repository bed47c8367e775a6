"""Memory of a rank by part, in bytes, for the fullest rank of a layout or for one pipeline stage.

Parameters, gradients and optimiser follow ``theoretical_memory_usage.py`` of Megatron-LM: 2 bytes a bf16 parameter,
4 its fp32 gradient, 12 master weight and Adam's moments, the last divided over the data-parallel ranks (with those of
context parallelism) by the distributed optimiser: 18, or 6 + 12/d. In fp32 there is no second copy: 16, or 8 + 8/d.
Pipeline stages keep several micro-batches at a time, as many as the schedule of Narayanan et al. 2021 (arXiv
2104.04473, section 2.2) has in flight; interleaving costs 1 + (p - 1)/(p v) times the first stage's memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.plan import activations
from sdrrl_nemo.plan.layout import Build, Layout

CONTEXT_BYTES = 1.0e9
"""CUDA context and cuBLAS workspaces of a process. A stated constant, not measured by this project."""
NCCL_BYTES = 1.0e9
"""NCCL's buffers where there are several GPUs. A stated constant, not measured by this project."""
FRAGMENTATION = 0.05
"""Of what comes and goes, lost between blocks of the allocator; Megatron-LM's estimate adds the same 5%."""
MOMENTS = 8
FP32 = 4
FP8_COPIES = 2
"""Bytes of a projection's copies in fp8, as it is and transposed, that Transformer Engine keeps through a step."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank."""

    parameters: float
    gradients: float
    optimizer: float
    """fp32 master weights (none in fp32) and Adam's two moments."""
    activations: float
    """Kept for the backward pass, of all micro-batches in flight."""
    loss: float
    """Final norm and logits, or what stands for them; last pipeline stage."""
    temporary: float
    """Largest tensors that live within one operation."""
    overhead: float

    @property
    def total(self) -> float:
        """Bytes in all."""
        return float(sum(getattr(self, f.name) for f in fields(self)))


def stage_parameters(shape: ModelShape, layout: Layout, stage: int) -> float:
    """Parameters of a rank of pipeline stage ``stage``; a tied embedding is on the first and on the last stage."""
    tp = layout.tp
    h, d = shape.hidden, shape.head_dim
    biases = (shape.heads + 2 * shape.groups) * d if shape.qkv_bias else 0
    norms = 2 * h + (2 * d if shape.qk_norm else 0)  # whole on every rank
    total = shape.layers / layout.pp * ((shape.layer_matrices() + biases) / tp + norms)
    embedding = shape.vocabulary * h / tp
    first, last = stage == 0, stage == layout.pp - 1
    if first:
        total += embedding
    if last:
        total += h + (0 if first and shape.tied else embedding)
    return float(total)


def trained_parameters(shape: ModelShape, layout: Layout, build: Build, stage: int) -> float:
    """Those with a gradient: all of a rank's, or its part of the adapters."""
    if not build.adapters:
        return stage_parameters(shape, layout, stage)
    return build.adapters * shape.layers / (layout.pp * layout.tp)


def in_flight(layout: Layout, stage: int) -> int:
    """Model chunks whose activations a stage holds at most (mcore: get_pp_rank_microbatches, plus the running one)."""
    warmup = layout.pp - stage - 1
    if layout.vpp > 1:
        warmup = 2 * warmup + (layout.vpp - 1) * layout.pp
    return min(warmup + 1, layout.accumulation * layout.vpp)


def optimizer_bytes(parameters: float, layout: Layout, build: Build) -> float:
    """Master weights and moments of ``parameters`` parameters."""
    each = MOMENTS + (FP32 if build.width != FP32 else 0)
    return parameters * each / (layout.dp * layout.cp if build.distributed_optimizer else 1)


def memory(
    shape: ModelShape, layout: Layout, build: Build, row_tokens: int, stage: int, sequence: int | None = None
) -> Memory:
    """Memory of a rank of one pipeline stage. ``shape`` as Megatron pads it (plan/layout.py: padded).

    With LoRA the activations are those of full training: frozen projections keep less, their adapters keep more.

    Args:
        row_tokens: tokens of one row; a micro-batch has ``micro_batch_size`` of them, divided over CP.
        sequence: samples' length where GPT layers keep attention scores; None: Llama-like layers.
    """
    tokens = row_tokens * layout.micro_batch_size / layout.cp
    trained = trained_parameters(shape, layout, build, stage)
    count = stage_parameters(shape, layout, stage) + (trained if build.adapters else 0.0)
    chunk = shape.layers / (layout.pp * layout.vpp)
    if sequence is None:
        of_chunk, again = activations.of_chunk(shape, layout, build, chunk)
    else:
        of_chunk, again = activations.gpt_layer(shape, layout, build, sequence) * chunk, 0.0
    chunks = in_flight(layout, stage)
    kept = tokens * of_chunk * chunks
    if stage == 0:  # token ids, and which of them are another rank's
        kept += tokens * (activations.INDEX + (layout.tp > 1)) * -(-chunks // layout.vpp)
    loss = 0.0
    if stage == layout.pp - 1:
        loss = tokens * activations.logits(shape, layout, build)
    kept += max(0.0, tokens * again - loss)  # parts are computed again once the loss has let its own go
    temporary = _temporary(shape, layout, build, tokens, stage)
    if build.fp8:  # each projection a second and a third time, for products along either side
        count += shape.layers / layout.pp * shape.layer_matrices() / layout.tp * FP8_COPIES / build.width
    fixed = CONTEXT_BYTES + (NCCL_BYTES if layout.gpus > 1 else 0.0)
    return Memory(
        parameters=count * build.width,
        gradients=trained * (build.gradient_bytes if build.width != FP32 else FP32),
        optimizer=optimizer_bytes(trained, layout, build),
        activations=kept,
        loss=loss,
        temporary=temporary,
        overhead=fixed + FRAGMENTATION * (kept + loss + temporary),
    )


def fullest(
    shape: ModelShape, layout: Layout, build: Build, row_tokens: int, sequence: int | None = None
) -> tuple[int, Memory]:
    """(pipeline stage, memory) of the rank that needs most."""
    stages = ((s, memory(shape, layout, build, row_tokens, s, sequence)) for s in range(layout.pp))
    return max(stages, key=lambda found: found[1].total)


def chunk_bytes(shape: ModelShape, layout: Layout, build: Build, rows: float) -> float:
    """Logits that exist at a time with ``loss.kernel: fused_linear``, of ``rows`` rows with loss."""
    from sdrrl_kernels.fused_linear_cross_entropy import chunk_rows  # brings torch: seconds, which others need not wait

    columns = shape.vocabulary // layout.tp
    at_a_time = chunk_rows(math.ceil(rows), columns, build.width, build.device, build.chunk_mib)
    return float(at_a_time * columns * build.width)


def _temporary(shape: ModelShape, layout: Layout, build: Build, tokens: float, stage: int) -> float:
    """Largest set of tensors at once that nothing keeps: gradients within a layer or within the loss."""
    w, tp, h = build.width, layout.tp, shape.hidden
    of_weight = 0 if build.fused_accumulation else 1  # else it goes into the fp32 one at once
    feed_forward = w * (3 * tokens * shape.feed_forward + of_weight * 2 * h * shape.feed_forward) / tp
    found = [feed_forward]  # gradients of gate, up and product; of the weight, before it is added to the fp32 one
    if stage == layout.pp - 1:
        output = shape.vocabulary / tp * h
        if build.fused_linear:
            found.append(chunk_bytes(shape, layout, build, build.live_share * tokens) + w * tokens * h)
        else:
            found.append(w * (of_weight * output + tokens * h))
    gathered = w * tokens * h if layout.sequence_parallel and tp > 1 else 0.0  # Megatron's buffer for gathered inputs
    return max(found) + gathered
