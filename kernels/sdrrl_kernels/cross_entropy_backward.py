# mypy: allow-untyped-defs, allow-incomplete-defs
"""Triton, backward direction: the gradient of the logits in place, and a late change of its scale.

The letters are those of ``cross_entropy_forward``, where the formula of the gradient is.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sdrrl_kernels.cross_entropy_forward import gradient_factor, tile_columns, write_gradient, write_zeros


@triton.jit(do_not_specialize=["n_valid", "vocab_start", "ignore_index", "smoothing", "uniform", "z_loss", "softcap"])
def gradient_kernel(
    x_ptr,
    x_stride,
    out_ptr,
    out_stride,
    label_ptr,
    weight_ptr,
    upstream_ptr,
    upstream_stride,
    max_ptr,
    sum_ptr,
    n_cols,
    n_valid,
    vocab_start,
    ignore_index,
    smoothing,
    uniform,
    z_loss,
    softcap,
    SOFTCAP: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    """out[row] = weight * upstream * gradient of the row's loss; out may be x. One row a program, one read, one write.

    The upstream gradient is multiplied in fp32, before the only rounding, and the label's -1 is taken in fp32 too.
    """
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(label_ptr + row).to(tl.int64)
    weight = tl.load(weight_ptr + row)
    x_ptr += row * x_stride
    out_ptr += row * out_stride
    offsets = tile_columns(BLOCK, VEC)  # before the branch, so that both of its sides share one set of registers
    if (label == ignore_index) | (weight == 0.0):
        write_zeros(out_ptr, offsets, n_cols, BLOCK, VEC)
    else:
        scale = weight * tl.load(upstream_ptr + row * upstream_stride).to(tl.float32)
        y = label - vocab_start
        m = tl.load(max_ptr + row)
        factor = gradient_factor(m, tl.load(sum_ptr + row), z_loss)
        write_gradient(
            x_ptr,
            out_ptr,
            offsets,
            n_cols,
            n_valid,
            y,
            m,
            factor,
            uniform,
            1.0 - smoothing,
            scale,
            softcap,
            SOFTCAP,
            EVEN,
            BLOCK,
            VEC,
        )


@triton.jit(do_not_specialize=["expected"])
def rescale_kernel(x_ptr, x_stride, upstream_ptr, expected, n_cols, BLOCK: tl.constexpr, VEC: tl.constexpr):
    """x *= upstream / expected. The comparison is made on the device: where they are equal no element is touched."""
    upstream = tl.load(upstream_ptr).to(tl.float32)
    if upstream != expected:
        x_ptr += tl.program_id(0).to(tl.int64) * x_stride
        offsets = tile_columns(BLOCK, VEC)
        for start in range(0, n_cols, BLOCK):
            c = start + offsets
            x = tl.load(x_ptr + c, mask=c < n_cols, other=0.0).to(tl.float32)
            tl.store(x_ptr + c, (x * (upstream / expected)).to(x_ptr.dtype.element_ty), mask=c < n_cols)
