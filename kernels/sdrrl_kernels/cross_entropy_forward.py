# mypy: allow-untyped-defs, allow-incomplete-defs
"""Triton, forward direction: row statistics in one read of the logits, the loss of a row, and loss with gradient.

Letters, all of one row and on this rank, fp32 unless said otherwise:

    x   logits
    c   their columns, int32; 0 is the first column of this rank's slice of the vocabulary
    y   the label's column, an integer; no column of the slice on every rank but the one that holds the label
    m   maximum of x; while a row is read, the maximum so far (online softmax, Milakov & Gimelshein 2018)
    d   sum of exp(x - m), so that exp(x - m) / d is the softmax
    s   sum of x, for label smoothing only
    e   exp(x - m)
    g   gradient of the row's loss with respect to x

A program computes one row; only finish_rows_kernel takes a tile of rows.

Tiles are [BLOCK / VEC, VEC] with VEC = 16 bytes, so that a thread owns whole 128-bit words: the maximum over a word
needs no other thread, and the online softmax costs 1 + 1/VEC exponentials an element instead of 2.
Columns up to ``n_valid`` are vocabulary, those up to ``n_cols`` (the width of the buffer) padding. Loads are masked by
``n_cols``, which Megatron pads to a multiple of 128, and values by ``n_valid``: an odd vocabulary keeps wide loads.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
"""The GPU has an instruction for 2**x and none for e**x, so exp(x) is written as exp2(x * LOG2E)."""


@triton.jit
def tile_columns(BLOCK: tl.constexpr, VEC: tl.constexpr):
    """Column offsets of a tile, int32 [BLOCK / VEC, VEC]."""
    return tl.arange(0, BLOCK // VEC)[:, None] * VEC + tl.arange(0, VEC)[None, :]


@triton.jit
def label_column(label, vocab_start, n_valid):
    """y of a label (int64); checked before it becomes int32, or a label beyond 2**32 would be another one's column."""
    y = label - vocab_start
    return tl.where((y >= 0) & (y < n_valid), y, -1).to(tl.int32)


@triton.jit
def online_softmax(x, m, d):
    """Fold a tile x [words, VEC] into the running maximum m and sum of exponentials d, both [words].

    x - m is taken before the factor log2(e): the other order loses three digits at logits around 1e4.
    """
    new = tl.maximum(m, tl.max(x, 1))
    # A word of padding alone has the maximum -inf, and -inf - -inf is NaN; 0 in its place gives exp(-inf) = 0.
    safe = tl.where(new == float("-inf"), 0.0, new)
    d = d * tl.exp2((m - safe) * LOG2E) + tl.sum(tl.exp2((x - safe[:, None]) * LOG2E), 1)
    return new, d


@triton.jit
def merge_softmax(m, d):
    """Merge the running values of all words, both [words], into maximum and sum of exponentials of the row."""
    row_max = tl.max(m, 0)
    safe = tl.where(row_max == float("-inf"), 0.0, row_max)
    # float64, once a row: up to 1024 words are added here, and each probability inherits the error of their sum
    return row_max, tl.sum((d * tl.exp2((m - safe) * LOG2E)).to(tl.float64), 0).to(tl.float32)


@triton.jit
def tanh(x):
    """tanh to about one rounding (Cephes, tanhf): a polynomial near 0, where the exponential would cancel."""
    z = x * x
    p = ((-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2) * z + 1.33314422036e-1
    near = ((p * z - 3.33332819422e-1) * z) * x + x
    far = 1.0 - 2.0 / (tl.exp2(tl.abs(x) * 2.0 * LOG2E) + 1.0)
    return tl.where(tl.abs(x) < 0.625, near, tl.where(x < 0.0, -far, far))


@triton.jit
def capped(x, softcap, SOFTCAP: tl.constexpr):
    """softcap * tanh(x / softcap). Before the mask of padding: of -inf it makes -softcap, which has probability."""
    if SOFTCAP:
        x = softcap * tanh(x / softcap)
    return x


@triton.jit
def scan_row(
    x_ptr,
    n_cols,
    n_valid,
    softcap,
    SMOOTHING: tl.constexpr,
    SOFTCAP: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    """Read a row once and return (maximum, sum of exponentials, sum of logits; 0 without SMOOTHING), all fp32 [].

    EVEN says that the row is a whole number of tiles without padding: then no mask is compiled in.
    """
    offsets = tile_columns(BLOCK, VEC)
    m = tl.full((BLOCK // VEC,), float("-inf"), tl.float32)
    d = tl.zeros((BLOCK // VEC,), tl.float32)
    s = tl.zeros((BLOCK // VEC,), tl.float32)
    whole = n_valid // BLOCK * BLOCK
    for start in range(0, whole, BLOCK):  # the tiles that are vocabulary throughout need no mask
        x = capped(tl.load(x_ptr + start + offsets).to(tl.float32), softcap, SOFTCAP)
        m, d = online_softmax(x, m, d)
        if SMOOTHING:
            s += tl.sum(x, 1)
    if not EVEN:
        for start in range(whole, n_valid, BLOCK):
            c = start + offsets
            x = tl.load(x_ptr + c, mask=c < n_cols, other=float("-inf")).to(tl.float32)
            x = tl.where(c < n_valid, capped(x, softcap, SOFTCAP), float("-inf"))
            m, d = online_softmax(x, m, d)
            if SMOOTHING:
                s += tl.sum(tl.where(c < n_valid, x, 0.0), 1)
    row_max, row_sum = merge_softmax(m, d)
    return row_max, row_sum, tl.sum(s, 0)


@triton.jit
def token_loss(row_max, row_sum, label_logit, logit_sum, smoothing, z_loss, vocab_size):
    """Loss of a token before its weight: (1 - smoothing) * nll + smoothing * mean nll + z_loss * logsumexp**2.

    nll is the negative log-likelihood of the label, mean nll its mean over the vocabulary. Both are computed from
    differences to the row's maximum, which stay exact where the logits themselves are large.
    """
    log_sum = tl.log(row_sum)
    nll = log_sum - (label_logit - row_max)
    spread = log_sum - (logit_sum / vocab_size - row_max)
    lse = row_max + log_sum
    loss = tl.where(smoothing > 0.0, (1.0 - smoothing) * nll + smoothing * spread, nll)
    return loss + tl.where(z_loss > 0.0, z_loss * lse * lse, 0.0)


@triton.jit
def gradient_factor(m, d, z_loss):
    """What exp(x - m) is multiplied by: (1 + 2 z_loss logsumexp) / d, the softmax and the z-loss in one."""
    return (1.0 + 2.0 * z_loss * (m + tl.log(d))) / d


@triton.jit
def logit_gradient(e, c, y, factor, uniform, target, scale):
    """The gradient of a token's loss, in its only place: scale * (factor * e - uniform - target at the label).

    All fp32, to be rounded once when it is stored. ``factor``: of gradient_factor, ``uniform``: smoothing / vocabulary,
    ``target``: 1 - smoothing, ``scale``: weight times upstream gradient.
    """
    g = e * factor - uniform
    return tl.where(c == y, g - target, g) * scale


@triton.jit
def capped_slope(x, softcap):
    """Derivative of the softcap at the logit whose capped value is x."""
    return 1.0 - (x / softcap) * (x / softcap)


@triton.jit
def write_gradient(
    x_ptr,
    out_ptr,
    offsets,
    n_cols,
    n_valid,
    y,
    m,
    factor,
    uniform,
    target,
    scale,
    softcap,
    SOFTCAP: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    """Read a row and write its gradient, padding 0; out_ptr may be x_ptr. EVEN as in scan_row."""
    whole = n_valid // BLOCK * BLOCK
    for start in range(0, whole, BLOCK):
        c = start + offsets
        x = capped(tl.load(x_ptr + c).to(tl.float32), softcap, SOFTCAP)
        g = logit_gradient(tl.exp2((x - m) * LOG2E), c, y, factor, uniform, target, scale)
        if SOFTCAP:
            g = g * capped_slope(x, softcap)
        tl.store(out_ptr + c, g.to(out_ptr.dtype.element_ty))
    if not EVEN:
        for start in range(whole, n_cols, BLOCK):
            c = start + offsets
            x = capped(tl.load(x_ptr + c, mask=c < n_cols, other=float("-inf")).to(tl.float32), softcap, SOFTCAP)
            g = logit_gradient(tl.exp2((x - m) * LOG2E), c, y, factor, uniform, target, scale)
            if SOFTCAP:
                g = g * capped_slope(x, softcap)
            g = tl.where(c < n_valid, g, 0.0)
            tl.store(out_ptr + c, g.to(out_ptr.dtype.element_ty), mask=c < n_cols)


@triton.jit
def write_zeros(out_ptr, offsets, n_cols, BLOCK: tl.constexpr, VEC: tl.constexpr):
    """The gradient of a row without loss: written even so, because the buffer is the gradient afterwards."""
    for start in range(0, n_cols, BLOCK):
        c = start + offsets
        tl.store(out_ptr + c, tl.zeros((BLOCK // VEC, VEC), out_ptr.dtype.element_ty), mask=c < n_cols)


@triton.jit(do_not_specialize=["n_rows", "n_valid", "vocab_start", "ignore_index", "softcap"])
def row_statistics_kernel(
    x_ptr,
    x_stride,
    label_ptr,
    weight_ptr,
    stat_ptr,
    n_rows,
    n_cols,
    n_valid,
    vocab_start,
    ignore_index,
    softcap,
    SMOOTHING: tl.constexpr,
    SOFTCAP: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    """Write stat[:, row]: this rank's maximum, sum of exponentials, label logit and, with SMOOTHING, sum of logits.

    The label's logit is 0 on the ranks that do not hold it, so that a sum over the ranks finds it.
    """
    # 64 bits: rows times columns reach 2**31 elements at 128K columns and 16K rows
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(label_ptr + row).to(tl.int64)
    weight = tl.load(weight_ptr + row)
    stat_ptr += row
    # The rows of questions and padding: their logits are not read. What is stored are the statistics of a single zero
    # logit, harmless numbers for the merge, which sets their loss to 0 anyway.
    if (label == ignore_index) | (weight == 0.0):
        tl.store(stat_ptr, 0.0)
        tl.store(stat_ptr + n_rows, 1.0)
        tl.store(stat_ptr + 2 * n_rows, 0.0)
        if SMOOTHING:
            tl.store(stat_ptr + 3 * n_rows, 0.0)
    else:
        x_ptr += row * x_stride
        y = label_column(label, vocab_start, n_valid)
        label_logit = capped(tl.load(x_ptr + y, mask=y >= 0, other=0.0).to(tl.float32), softcap, SOFTCAP)
        row_max, row_sum, logit_sum = scan_row(x_ptr, n_cols, n_valid, softcap, SMOOTHING, SOFTCAP, EVEN, BLOCK, VEC)
        tl.store(stat_ptr, row_max)
        tl.store(stat_ptr + n_rows, row_sum)
        tl.store(stat_ptr + 2 * n_rows, label_logit)
        if SMOOTHING:
            tl.store(stat_ptr + 3 * n_rows, logit_sum)


@triton.jit(do_not_specialize=["n_rows", "ignore_index", "low", "high", "smoothing", "z_loss", "vocab_size"])
def finish_rows_kernel(
    part_ptr,
    label_ptr,
    weight_ptr,
    token_ptr,
    max_ptr,
    sum_ptr,
    n_rows,
    ignore_index,
    low,
    high,
    smoothing,
    z_loss,
    vocab_size,
    WORLD: tl.constexpr,
    STATISTICS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Merge the ranks' statistics [WORLD, STATISTICS, n_rows] into loss, maximum and sum of each row of a tile.

    Every rank merges in rank order and so gets the same bits; no rank has to send the result to another. A label
    outside [low, high) is of no rank, and its loss NaN: without the label's logit it would look like any other number.
    """
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = row < n_rows
    row_max = tl.full((BLOCK,), float("-inf"), tl.float32)
    for rank in tl.static_range(WORLD):
        row_max = tl.maximum(row_max, tl.load(part_ptr + rank * STATISTICS * n_rows + row, mask=live, other=0.0))
    safe = tl.where(row_max == float("-inf"), 0.0, row_max)
    row_sum = tl.zeros((BLOCK,), tl.float32)
    label_logit = tl.zeros((BLOCK,), tl.float32)
    logit_sum = tl.zeros((BLOCK,), tl.float32)
    for rank in tl.static_range(WORLD):
        base = part_ptr + rank * STATISTICS * n_rows + row
        m = tl.load(base, mask=live, other=0.0)
        row_sum += tl.load(base + n_rows, mask=live, other=1.0) * tl.exp2((m - safe) * LOG2E)
        label_logit += tl.load(base + 2 * n_rows, mask=live, other=0.0)
        if STATISTICS == 4:
            logit_sum += tl.load(base + 3 * n_rows, mask=live, other=0.0)
    label = tl.load(label_ptr + row, mask=live, other=0).to(tl.int64)
    weight = tl.load(weight_ptr + row, mask=live, other=0.0)
    label_logit = tl.where((label < low) | (label >= high), float("nan"), label_logit)
    loss = token_loss(row_max, row_sum, label_logit, logit_sum, smoothing, z_loss, vocab_size) * weight
    tl.store(token_ptr + row, tl.where((label == ignore_index) | (weight == 0.0), 0.0, loss), mask=live)
    tl.store(max_ptr + row, row_max, mask=live)
    tl.store(sum_ptr + row, row_sum, mask=live)


@triton.jit(do_not_specialize=["n_valid", "ignore_index", "smoothing", "uniform", "z_loss", "vocab_size", "upstream"])
def one_pass_kernel(
    x_ptr,
    x_stride,
    label_ptr,
    weight_ptr,
    token_ptr,
    max_ptr,
    sum_ptr,
    n_cols,
    n_valid,
    ignore_index,
    smoothing,
    uniform,
    z_loss,
    vocab_size,
    upstream,
    SMOOTHING: tl.constexpr,
    RESIDENT: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    """Loss and gradient of a row that is whole on this rank; x is overwritten by upstream * weight * gradient.

    RESIDENT: the row is one tile and stays in registers, read once and written once. Otherwise it is read twice, the
    second time right after the first, while it may still be in the L2 cache. The loss is NaN where the label is of no
    column.
    """
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(label_ptr + row).to(tl.int64)
    weight = tl.load(weight_ptr + row)
    x_ptr += row * x_stride
    c = tile_columns(BLOCK, VEC)
    if (label == ignore_index) | (weight == 0.0):
        write_zeros(x_ptr, c, n_cols, BLOCK, VEC)
        tl.store(token_ptr + row, 0.0)
        tl.store(max_ptr + row, 0.0)
        tl.store(sum_ptr + row, 1.0)
    else:
        y = label  # the row is whole on this rank, so a label is its own column
        label_logit = tl.load(x_ptr + y, mask=(y >= 0) & (y < n_valid), other=float("nan")).to(tl.float32)
        if RESIDENT:
            raw = tl.load(x_ptr + c, mask=c < n_cols, other=float("-inf"))
            x = tl.where(c < n_valid, raw.to(tl.float32), float("-inf"))
            row_max = tl.max(tl.max(x, 1), 0)
            e = tl.exp2((x - tl.where(row_max == float("-inf"), 0.0, row_max)) * LOG2E)
            words = tl.sum(e, 1)
            if BLOCK <= 16384:  # float64 as in merge_softmax; in the widest tile it would spill on sm_90
                words = words.to(tl.float64)
            row_sum = tl.sum(words, 0).to(tl.float32)
            logit_sum = 0.0
            if SMOOTHING:
                logit_sum = tl.sum(tl.sum(tl.where(c < n_valid, x, 0.0), 1), 0)
            factor = gradient_factor(row_max, row_sum, z_loss)
            g = logit_gradient(e, c, y, factor, uniform, 1.0 - smoothing, weight * upstream)
            g = tl.where(c < n_valid, g, 0.0)
            tl.store(x_ptr + c, g.to(x_ptr.dtype.element_ty), mask=c < n_cols)
        else:
            row_max, row_sum, logit_sum = scan_row(x_ptr, n_cols, n_valid, 0.0, SMOOTHING, False, EVEN, BLOCK, VEC)
            factor = gradient_factor(row_max, row_sum, z_loss)
            target, scale = 1.0 - smoothing, weight * upstream
            write_gradient(
                x_ptr,
                x_ptr,
                c,
                n_cols,
                n_valid,
                y,
                row_max,
                factor,
                uniform,
                target,
                scale,
                0.0,
                False,
                EVEN,
                BLOCK,
                VEC,
            )
        loss = token_loss(row_max, row_sum, label_logit, logit_sum, smoothing, z_loss, vocab_size)
        tl.store(token_ptr + row, loss * weight)
        tl.store(max_ptr + row, row_max)
        tl.store(sum_ptr + row, row_sum)
