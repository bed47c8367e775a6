"""Bytes that autograd keeps of a forward pass, tensor by tensor, for the layers this recipe builds.

The way of counting is Korthikanti et al. 2022 (arXiv 2205.05198, section 4): every tensor that a backward pass reads,
once, divided by the ranks that share it. Their ``sbh (10 + 24/t + 5as/(ht))`` is for GPT: GELU, dropout masks, scores
of attention in memory. Llama has no dropout, SwiGLU's three feed-forward tensors and an attention that keeps no scores,
so the sum differs; ``gpt_layer`` is theirs, unchanged, for the runs they published.

Legend: h hidden, n/g query and key/value heads of all ranks, d head size, f feed-forward, V vocabulary, w bytes of an
element. What the local layers keep is measured (tests/distributed/test_plan_measured.py); what Transformer Engine keeps
is read from its modules and not measured, since that needs a GPU.
"""

from __future__ import annotations

from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.plan.layout import Build, Layout

FP32 = 4
INDEX = 8
"""Bytes of a token id or a position in an index, int64."""


def norm(width: int, build: Build) -> float:
    """Bytes an RMSNorm over ``width`` values keeps of a token: input and reciprocal norm, plus its output, which the
    projection behind it keeps (model/norm.py on a CPU, torch's own and Transformer Engine's on a GPU).
    """
    return 2 * build.width * width + FP32


def layer(shape: ModelShape, layout: Layout, build: Build) -> float:
    """Bytes one layer keeps for each token of this rank's part of the sequence (context parallelism divides it).

    Without sequence parallelism every tensor-parallel rank keeps the whole norms: h is divided by TP only with it.
    """
    tp = layout.tp
    split = tp if layout.sequence_parallel else 1
    feed_forward = 3 * shape.feed_forward * build.width  # gate and up in one, their product
    return 2 * norm(shape.hidden, build) / split + attention(shape, layout, build) + feed_forward / tp


def attention(shape: ModelShape, layout: Layout, build: Build) -> float:
    """Rotary positions, queries, keys, values, output and log-sum-exp of one layer, bytes a token."""
    w, d, tp, cp = build.width, shape.head_dim, layout.tp, layout.cp
    q, kv = shape.heads * d / tp, 2 * shape.groups * d / tp
    out = w * q + FP32 * shape.heads / tp  # output, log-sum-exp
    heads = norm(d, build) * (shape.heads + shape.groups) / tp if shape.qk_norm else 0.0
    if build.fused:  # rotated queries and keys, and the projection they came from, which the values are a part of
        return w * (q + kv / 2) + w * (q + kv) + out + heads
    # cosines and sines, for queries and for keys; those of packed rows are all layers' (compat/steps/packed_rotary.py)
    rotary = 0 if build.packed else 4 * d * w
    copied = layout.cp == 1 and not build.packed and layout.micro_batch_size == 1
    context = 0 if copied else w * q  # heads side by side, a copy of the samples' outputs
    in_fp32 = build.device == "cpu" and w != FP32  # model/attention.py casts: torch's CPU kernel is slow in bf16
    if cp == 1:
        inputs = (FP32 if in_fp32 else w) * (q + kv)  # rotated queries and keys, a copy of the values
        if shape.qk_norm and not in_fp32:
            inputs += w * kv / 2  # the norms keep views of the whole projection
    else:  # keys and values of all ranks (model/context_parallel.py), and the index that puts them in order, twice
        seen = (2 * cp + 1) / 2 if in_fp32 else cp  # casts copy what each of a sample's two chunks attends to
        inputs = (FP32 if in_fp32 else w) * (q + kv * seen) + 2 * INDEX * cp
    if in_fp32:  # the output is kept in fp32 for the kernel and in bf16 for the projection
        out += (FP32 - w) * q
        context = w * q
    return rotary + inputs + out + context + heads


def logits(shape: ModelShape, layout: Layout, build: Build) -> float:
    """Final norm and loss, bytes a token; ``fused_linear`` keeps the hidden states' gradient in place of logits.

    Rows that carry loss are taken out behind the norm, of all tensor-parallel ranks
    (kernels/sdrrl_kernels/live_rows.py); the norm's own output is kept by nothing. The loss overwrites the
    logits with their gradient (kernels/sdrrl_kernels/cross_entropy.py), so they are there once.
    """
    split = layout.tp if layout.sequence_parallel else 1
    row: float = build.width * shape.hidden + INDEX
    if not build.fused_linear:
        row += build.width * shape.vocabulary / layout.tp
        row += 20 if layout.tp > 1 else 0  # labels, weights, maximum and sum of a row
    return (norm(shape.hidden, build) - build.width * shape.hidden) / split + build.live_share * row


def loss_constant(shape: ModelShape, layout: Layout, build: Build) -> float:
    """Bytes of the loss that do not grow with tokens: ``fused_linear`` has the output weight's gradient in advance."""
    return build.width * shape.vocabulary / layout.tp * shape.hidden if build.fused_linear else 0.0


def gpt_layer(shape: ModelShape, layout: Layout, build: Build, sequence: int) -> float:
    """Korthikanti et al. 2022, table 2: bytes a token and layer of a GPT in 16 bit, samples of ``sequence`` tokens."""
    h, tp = shape.hidden, layout.tp
    if build.recompute == "full":
        return 2.0 * h
    scores = 0.0 if build.flash or build.recompute == "selective" else 5 * shape.heads * sequence / tp
    return h * (34 / tp if layout.sequence_parallel else 10 + 24 / tp) + scores
