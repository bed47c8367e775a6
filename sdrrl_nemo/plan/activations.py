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
from sdrrl_nemo.plan.layout import Build, Layout, recomputes

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
    split = layout.tp if layout.sequence_parallel else 1
    norms = 2 * (norm(shape.hidden, build) - _spared_by_fp8(build) * shape.hidden) / split
    return norms + attention(shape, layout, build) + feed_forward(shape, layout, build)


def _spared_by_fp8(build: Build) -> float:
    """Bytes of an element that a projection keeps of its input, less the one byte of fp8."""
    return build.width - 1.0 if build.fp8 else 0.0


def feed_forward(shape: ModelShape, layout: Layout, build: Build) -> float:
    """Gate and up in one, and their product, bytes a token; in fp8 the product is kept in one byte."""
    return (3 * build.width - _spared_by_fp8(build)) * shape.feed_forward / layout.tp


def of_chunk(shape: ModelShape, layout: Layout, build: Build, layers: float) -> tuple[float, float]:
    """(what a chunk of ``layers`` layers keeps, what comes back when its parts are computed again, one at a time) under
    ``megatron.recompute_granularity``, bytes a token.
    """
    whole = layer(shape, layout, build)
    split = layout.tp if layout.sequence_parallel else 1
    kept_input = build.width * shape.hidden / split
    if build.recompute == "full":
        n = build.recompute_layers
        if build.recompute_method == "uniform":
            return layers / n * kept_input, n * whole - kept_input
        n = min(n, int(layers))
        # where a layer keeps everything, it is gone before the first of the others is computed again
        return n * kept_input + (layers - n) * whole, whole - kept_input if n == layers else 0.0
    parts = _parts_again(shape, layout, build) if build.recompute == "selective" else [0.0]
    return layers * (whole - sum(parts)), max(0.0, *parts)


def _parts_again(shape: ModelShape, layout: Layout, build: Build) -> list[float]:
    """What each part that is computed again no longer keeps, bytes a token of one layer."""
    split = layout.tp if layout.sequence_parallel else 1
    output = (
        (build.width - _spared_by_fp8(build)) * shape.hidden + FP32
    ) / split  # of a norm: its output and reciprocal
    found = [0.0]
    if recomputes(build, "mlp"):  # Transformer Engine's norm is inside the projection, and so inside the part
        found.append(feed_forward(shape, layout, build) + (output if build.fused else 0.0))
    if recomputes(build, "layernorm") and not build.fused:
        found += [output, output]
    if recomputes(build, "core_attn"):
        found.append(attention(shape, layout, build) - _attention_again(shape, layout, build))
    return found


def _attention_again(shape: ModelShape, layout: Layout, build: Build) -> float:
    """What one layer's attention keeps, bytes a token, where the core attention is computed again.

    Its inputs are rotated queries and keys, and values that are a view of the whole projection; the output projection
    keeps the output. So little is spared, unless the attention itself works on copies in fp32, as on a CPU.
    """
    w, d, tp = build.width, shape.head_dim, layout.tp
    q, kv = shape.heads * d / tp, 2 * shape.groups * d / tp
    rotary = 0 if build.fused else _rotary_tables(shape, build)
    heads = norm(d, build) * (shape.heads + shape.groups) / tp if shape.qk_norm else 0.0
    return rotary + w * (q + kv / 2) + w * (q + kv) + w * q + heads


def _rotary_tables(shape: ModelShape, build: Build) -> float:
    """Cosines and sines of a local layer, for queries and for keys, bytes a token; packed rows have one table for all
    layers (compat/steps/packed_rotary.py)."""
    return 0.0 if build.packed else 4.0 * shape.head_dim * build.width


def attention(shape: ModelShape, layout: Layout, build: Build) -> float:
    """Rotary positions, queries, keys, values, output and log-sum-exp of one layer, bytes a token."""
    w, d, tp, cp = build.width, shape.head_dim, layout.tp, layout.cp
    q, kv = shape.heads * d / tp, 2 * shape.groups * d / tp
    out = w * q + FP32 * shape.heads / tp  # output, log-sum-exp
    if build.fp8:
        out += q  # and the output in one byte, for the projection
    heads = norm(d, build) * (shape.heads + shape.groups) / tp if shape.qk_norm else 0.0
    if build.fused:  # rotated queries and keys, and the projection they came from, which the values are a part of
        return w * (q + kv / 2) + w * (q + kv) + out + heads
    rotary = _rotary_tables(shape, build)
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
    """Final norm and loss, bytes a token; ``fused_linear`` keeps the hidden states' gradient in place of logits;
    the weight's is where all gradients are summed.

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


def gpt_layer(shape: ModelShape, layout: Layout, build: Build, sequence: int) -> float:
    """Korthikanti et al. 2022, table 2: bytes a token and layer of a GPT in 16 bit, samples of ``sequence`` tokens."""
    h, tp = shape.hidden, layout.tp
    if build.recompute == "full":
        return 2.0 * h
    scores = 0.0 if build.flash or build.recompute == "selective" else 5 * shape.heads * sequence / tp
    return h * (34 / tp if layout.sequence_parallel else 10 + 24 / tp) + scores
