"""Triton backend: plans and launches the kernels of the forward and the backward direction.

The functions are the steps of ``options.Backend``, which says what each takes and returns. n rows, one program each;
``itemsize`` bytes an element. The kernels over the logits are not launched where there are no rows (n = 0).
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from sdrrl_kernels.cross_entropy_backward import gradient_kernel, rescale_kernel
from sdrrl_kernels.cross_entropy_forward import finish_rows_kernel, one_pass_kernel, row_statistics_kernel
from sdrrl_kernels.options import LossOptions, Totals, label_range
from sdrrl_kernels.plans import Plan, chosen
from sdrrl_kernels.subset_sums import subset_sums_kernel

ROW_TILE = 256
"""Rows a program of the per-row kernels; they move 30 bytes a row and are launch-bound."""


class Tile(NamedTuple):
    """Launch plan of one row."""

    block: int
    """Columns that are worked on at a time, a power of two."""
    warps: int
    """Warps (32 threads each) of the program."""
    vec: int
    """Columns that make 16 bytes, the widest load of a thread; 1 where rows do not start at whole 16 bytes."""


STREAM_BLOCK = 4096
STREAM_WARPS = 8
RESIDENT_COLUMNS = {2: 32768, 4: 16384}
RESIDENT_COLUMNS_SMOOTHING = {2: 16384, 4: 16384}
"""Widest row (columns, by bytes an element) kept in registers without a spill on sm_80, sm_90 and sm_100.

Measured by tools/bench/compile_kernels.py, which fails when a plan chosen here spills; see docs/kernels.md.
"""


def interpreted() -> bool:
    """True where kernels run in Triton's interpreter (TRITON_INTERPRET=1 set before the first import of triton)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def aligned(*rows: Tensor) -> bool:
    """Whether Triton may load and store whole 16 bytes: it asks for addresses and numbers of columns divisible by 16.

    Rows of an odd vocabulary (32,003, one that was expanded) are read a column at a time. With words of 16 bytes in the
    tile, neighbouring threads then share a word and find its maximum by shuffles: 207 in the program of bf16 statistics
    for sm_90, against 24 with words of one column; and the row that just fits into registers spills 920 bytes.
    """
    return all(t.data_ptr() % 16 == 0 and t.stride(0) % 16 == 0 and t.shape[1] % 16 == 0 for t in rows)


def stream_tile(columns: int, itemsize: int, wide: bool = True) -> Tile:
    """Plan for a row read in pieces; ``wide`` where rows are ``aligned``."""
    word = 16 // itemsize
    # at least 128 words a tile, one for each thread of the smallest program (4 warps); a word of one column takes as
    # many registers for its maximum and sum as one of eight
    block = min(STREAM_BLOCK if wide else STREAM_BLOCK // 2, max(128 * word, triton.next_power_of_2(columns)))
    default = Plan(block, max(4, min(STREAM_WARPS, block // (32 * word))))
    if not wide:  # plans are tuned on aligned rows
        return Tile(*default, 1)
    return Tile(*chosen("stream", columns, itemsize, default), word)


def resident_tile(columns: int, itemsize: int, smoothing: bool, wide: bool = True) -> Tile | None:
    """Plan for a row held in registers, or None where it does not fit, or is not ``wide`` and would spill."""
    if not wide or columns > (RESIDENT_COLUMNS_SMOOTHING if smoothing else RESIDENT_COLUMNS)[itemsize]:
        return None
    vec = 16 // itemsize
    block = max(128 * vec, triton.next_power_of_2(columns))
    return Tile(*chosen("resident", columns, itemsize, Plan(block, max(4, min(32, block // (128 * vec))))), vec)


def _even(columns: int, valid: int, tile: Tile) -> bool:
    """Whether the row is a whole number of tiles without padding; the kernel is then compiled without masks."""
    return valid == columns and columns % tile.block == 0


def statistics(logits: Tensor, labels: Tensor, weights: Tensor, o: LossOptions) -> Tensor:
    n, columns = logits.shape
    part = torch.empty((o.statistics, n), dtype=torch.float32, device=logits.device)
    tile = stream_tile(columns, logits.element_size(), aligned(logits))
    if n:
        row_statistics_kernel[(n,)](
            logits,
            logits.stride(0),
            labels,
            weights,
            part,
            n,
            columns,
            o.valid,
            o.vocab_start,
            o.ignore_index,
            o.softcap,
            SMOOTHING=o.label_smoothing > 0,
            SOFTCAP=o.softcap > 0,
            EVEN=_even(columns, o.valid, tile),
            BLOCK=tile.block,
            VEC=tile.vec,
            num_warps=tile.warps,
        )
    return part


def finish(parts: Tensor, labels: Tensor, weights: Tensor, o: LossOptions) -> tuple[Tensor, Tensor, Tensor]:
    world, k, n = parts.shape
    low, high = label_range(o, world)
    token, row_max, row_sum = torch.empty((3, n), dtype=torch.float32, device=parts.device).unbind()
    if n:
        finish_rows_kernel[(triton.cdiv(n, ROW_TILE),)](
            parts,
            labels,
            weights,
            token,
            row_max,
            row_sum,
            n,
            o.ignore_index,
            low,
            high,
            o.label_smoothing,
            o.z_loss,
            float(o.vocab_size),
            WORLD=world,
            STATISTICS=k,
            BLOCK=ROW_TILE,
            num_warps=4,
        )
    return token, row_max, row_sum


def gradient(
    logits: Tensor,
    out: Tensor,
    labels: Tensor,
    weights: Tensor,
    upstream: Tensor,
    row_max: Tensor,
    row_sum: Tensor,
    o: LossOptions,
) -> None:
    n, columns = logits.shape
    tile = stream_tile(columns, logits.element_size(), aligned(logits, out))
    if n:
        gradient_kernel[(n,)](
            logits,
            logits.stride(0),
            out,
            out.stride(0),
            labels,
            weights,
            upstream,
            upstream.stride(0) if upstream.dim() else 0,  # stride 0: every row reads the one number
            row_max,
            row_sum,
            columns,
            o.valid,
            o.vocab_start,
            o.ignore_index,
            o.label_smoothing,
            o.label_smoothing / o.vocab_size,
            o.z_loss,
            o.softcap,
            SOFTCAP=o.softcap > 0,
            EVEN=_even(columns, o.valid, tile),
            BLOCK=tile.block,
            VEC=tile.vec,
            num_warps=tile.warps,
        )


def one_pass(
    logits: Tensor, labels: Tensor, weights: Tensor, upstream: float, o: LossOptions
) -> tuple[Tensor, Tensor, Tensor]:
    # The one launch knows neither a slice without its group nor a softcap: it has no register to spare for them.
    if o.vocab_start or o.softcap:
        token, row_max, row_sum = finish(statistics(logits, labels, weights, o)[None], labels, weights, o)
        known = torch.full((), upstream, dtype=torch.float32, device=logits.device)
        gradient(logits, logits, labels, weights, known, row_max, row_sum, o)
        return token, row_max, row_sum
    n, columns = logits.shape
    token, row_max, row_sum = torch.empty((3, n), dtype=torch.float32, device=logits.device).unbind()
    wide = aligned(logits)
    resident = resident_tile(columns, logits.element_size(), o.label_smoothing > 0, wide)
    # A row that fits into registers is read once; one that does not is streamed twice, the second time from the cache.
    tile = resident or stream_tile(columns, logits.element_size(), wide)
    if n:
        one_pass_kernel[(n,)](
            logits,
            logits.stride(0),
            labels,
            weights,
            token,
            row_max,
            row_sum,
            columns,
            o.valid,
            o.ignore_index,
            o.label_smoothing,
            o.label_smoothing / o.vocab_size,
            o.z_loss,
            float(o.vocab_size),
            upstream,
            SMOOTHING=o.label_smoothing > 0,
            RESIDENT=resident is not None,
            EVEN=_even(columns, o.valid, tile),
            BLOCK=tile.block,
            VEC=tile.vec,
            num_warps=tile.warps,
        )
    return token, row_max, row_sum


def totals(token: Tensor, labels: Tensor, subset_ids: Tensor, num_subsets: int, ignore_index: int) -> Totals:
    sums = torch.empty(num_subsets + 1, dtype=torch.float32, device=token.device)
    counts = torch.empty(num_subsets + 1, dtype=torch.int64, device=token.device)
    # One program for each subset and one for the total, each over all rows in order: no atomic additions, whose order
    # and so whose rounding would change from run to run.
    subset_sums_kernel[(num_subsets + 1,)](
        token, labels, subset_ids, sums, counts, token.shape[0], num_subsets, ignore_index, BLOCK=1024, num_warps=4
    )
    return Totals(sums[num_subsets], sums[:num_subsets], counts[:num_subsets])


def rescale(gradient: Tensor, upstream: Tensor, expected: float) -> None:
    rows, columns = gradient.shape
    tile = stream_tile(columns, gradient.element_size(), aligned(gradient))
    if rows:
        rescale_kernel[(rows,)](
            gradient,
            gradient.stride(0),
            upstream,
            expected,
            columns,
            BLOCK=tile.block,
            VEC=tile.vec,
            num_warps=tile.warps,
        )
