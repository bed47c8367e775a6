# mypy: allow-untyped-defs, allow-incomplete-defs
"""Triton: loss sums and token counts by subset, in a fixed order (no atomics), accumulated in float64."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n_rows", "num_subsets", "ignore_index"])
def subset_sums_kernel(
    token_ptr, label_ptr, subset_ptr, sum_ptr, count_ptr, n_rows, num_subsets, ignore_index, BLOCK: tl.constexpr
):
    """Program k < num_subsets: sum and count of subset k; the last program: of all tokens. Reads 20 bytes a token."""
    k = tl.program_id(0)
    total = tl.zeros((BLOCK,), tl.float64)
    count = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, n_rows, BLOCK):
        i = start + tl.arange(0, BLOCK)
        live = i < n_rows
        label = tl.load(label_ptr + i, mask=live, other=0).to(tl.int64)
        subset = tl.load(subset_ptr + i, mask=live, other=-1).to(tl.int32)
        subset = tl.where(k == num_subsets, k, subset)
        member = tl.where((label != ignore_index) & (subset == k), 1, 0)
        loss = tl.load(token_ptr + i, mask=live, other=0.0)
        total += tl.where(member == 1, loss, 0.0).to(tl.float64)
        count += tl.where(live, member, 0)
    tl.store(sum_ptr + k, tl.sum(total, 0).to(tl.float32))
    tl.store(count_ptr + k, tl.sum(count, 0).to(tl.int64))
