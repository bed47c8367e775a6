"""Chunked output projection + cross-entropy: the logits of all tokens never exist at once.

For a chunk of rows: logits = hidden @ weight.T, loss, logits -> their gradient in place, gradient @ weight into the
hidden states' gradient, gradient.T @ hidden into the weight's, which is summed in fp32 over chunks. The per-token
weights are inside, before that sum over tokens; multiplied on afterwards they would be silently wrong.
Vocab-parallel: one all-gather of three numbers a row a chunk, and the hidden states' gradient summed over ranks while
the next chunk is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sdrrl_kernels.cross_entropy import logsumexp_of
from sdrrl_kernels.options import Backend, LossOptions, exchange

CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 512 << 20}
"""Logits of a chunk. Larger: fewer passes over the weight's fp32 gradient. Smaller: less memory."""

CHUNK_ROWS = 512
"""Fewer rows, and numbers that are no multiple of 64, make the matrix products slower."""

BLOCK = 8192
"""Rows of the weight's gradient that one product makes on CPU: it is added up while it is in the cache."""


def chunk_rows(n: int, columns: int, width: int, itemsize: int, device: str, rows: int | None = None) -> int:
    """Rows a chunk: ``rows`` if given, else what fits CHUNK_BYTES, at least CHUNK_ROWS, in chunks of about equal size.

    All ``n`` rows in one chunk where chunks would not save a quarter of the logits: chunks need the fp32 gradient of
    the weight [columns, width], a single chunk does not.
    """
    if rows is not None:
        return max(1, rows)
    fit = CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]) // max(1, columns * itemsize)
    fit = max(CHUNK_ROWS, fit // CHUNK_ROWS * CHUNK_ROWS)
    if n <= fit or fit * itemsize + 4 * width > 0.75 * n * itemsize:
        return max(1, n)
    chunks = -(-n // fit)
    return -(-n // chunks // 64) * 64


class _Chunks:
    """One sweep over the rows: a logits buffer used again and again, and the gradients it adds to."""

    def __init__(self, hidden: Tensor, weight: Tensor, rows: int, need_hidden: bool, need_weight: bool) -> None:
        self.hidden, self.weight, self.rows = hidden, weight, rows
        n = hidden.shape[0]
        self.buffer = hidden.new_empty((min(rows, n), weight.shape[0]))
        self.d_hidden = torch.empty_like(hidden) if need_hidden else None
        self.single = 0 < n <= rows  # then there is no sum over chunks, and the product itself is rounded once
        self.d_weight: Tensor | None = None
        if need_weight:  # a single product is rounded once to the weight's dtype, without an fp32 sum
            dtype = weight.dtype if self.single else torch.float32
            self.d_weight = torch.empty_like(weight, dtype=dtype) if n else torch.zeros_like(weight)
        self.pending: list[Any] = []

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        n = self.hidden.shape[0]
        for start in range(0, n, self.rows):
            c = slice(start, min(start + self.rows, n))
            logits = self.buffer[: c.stop - c.start]
            torch.mm(self.hidden[c], self.weight.t(), out=logits)
            yield c, logits

    def add(self, c: slice, gradient: Tensor, group: dist.ProcessGroup | None) -> None:
        """Project a chunk's logits gradient [rows, columns] onto the hidden states and onto the weight."""
        if self.d_hidden is not None:
            part = self.d_hidden[c]
            torch.mm(gradient, self.weight, out=part)
            if group is not None:
                self.pending.append(dist.all_reduce(part, group=group, async_op=True))
        if self.d_weight is not None:
            _accumulate(self.d_weight, gradient, self.hidden[c], first=c.start == 0)

    def finish(self) -> tuple[Tensor | None, Tensor | None]:
        for work in self.pending:
            work.wait()
        return self.d_hidden, self.d_weight


def _accumulate(total: Tensor, gradient: Tensor, hidden: Tensor, first: bool) -> None:
    """total [V, H] += gradient.T @ hidden, or = for the first chunk. On CUDA the product leaves in total's dtype."""
    if total.dtype == gradient.dtype:
        torch.addmm(total, gradient.t(), hidden, beta=0 if first else 1, out=total)
    elif gradient.is_cuda:
        torch.addmm(total, gradient.t(), hidden, beta=0 if first else 1, out_dtype=torch.float32, out=total)
    else:
        for start in range(0, total.shape[0], BLOCK):
            rows = slice(start, start + BLOCK)
            product = gradient[:, rows].t() @ hidden
            if first:
                total[rows] = product
            else:
                total[rows] += product


class LinearCrossEntropy(torch.autograd.Function):
    """(hidden [n, H], weight [V/tp, H], ...) -> (loss or token losses, subset_sums, subset_counts, logsumexp or empty).

    reduction "sum": gradients are made in the forward pass for the upstream gradient ``expected``, and rescaled in the
    backward pass should another one come. reduction "none": each token has its own, so the backward pass computes the
    logits a second time and gives every row its factor before the sum over rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        weights: Tensor,
        subset_ids: Tensor,
        num_subsets: int,
        o: LossOptions,
        backend: Backend,
        reduction: str,
        return_logsumexp: bool,
        expected: float,
        rows: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.o, ctx.backend, ctx.expected, ctx.rows = o, backend, expected, rows
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        ctx.recompute = reduction == "none" and (need_hidden or need_weight)
        now = not ctx.recompute and (need_hidden or need_weight)
        n = hidden.shape[0]
        token = torch.zeros(n, dtype=torch.float32, device=hidden.device)
        row_max, row_sum = torch.zeros_like(token), torch.ones_like(token)
        live = _live_rows(labels, weights, o)
        x, y, w = (hidden, labels, weights) if live is None else (hidden[live], labels[live], weights[live])
        chunks = _Chunks(x, weight, rows, now and need_hidden, now and need_weight)
        upstream = torch.full((), expected, dtype=torch.float32, device=hidden.device)
        found = []
        for c, logits in chunks:
            if now and o.group is None:
                found.append(backend.one_pass(logits, y[c], w[c], expected, o))
            else:
                parts = exchange(backend.statistics(logits, y[c], w[c], o), o.group)
                found.append(backend.finish(parts, y[c], w[c], o))
                if now:
                    backend.gradient(logits, logits, y[c], w[c], upstream, found[-1][1], found[-1][2], o)
            if now:
                chunks.add(c, logits, o.group)
        for whole, parts_of in zip((token, row_max, row_sum), zip(*found, strict=True), strict=False):
            _scatter(whole, torch.cat(parts_of), live)
        loss, sums, counts = backend.totals(token, labels, subset_ids, num_subsets, o.ignore_index)
        lse = logsumexp_of(row_max, row_sum, labels, weights, o) if return_logsumexp else token.new_empty(0)
        ctx.mark_non_differentiable(sums, counts, lse)
        if ctx.recompute:
            ctx.save_for_backward(hidden, weight, labels, weights, row_max, row_sum)
        elif now:
            d_hidden, d_weight = chunks.finish()
            if d_hidden is not None and live is not None:
                d_hidden = torch.zeros_like(hidden).index_copy_(0, live, d_hidden)
            # the sum over chunks is done, so one rounding to the weight's dtype is all that is lost
            ctx.save_for_backward(d_hidden, None if d_weight is None else d_weight.to(weight.dtype))
        return (token if reduction == "none" else loss), sums, counts, lse

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        if ctx.recompute:
            return (*_recompute(ctx, upstream[0]), *(None,) * 10)
        d_hidden, d_weight = ctx.saved_tensors
        out: list[Tensor | None] = []
        for gradient in (d_hidden, d_weight):
            if gradient is None:
                out.append(None)
                continue
            fresh = gradient.detach()
            ctx.backend.rescale(fresh, upstream[0], ctx.expected)
            torch.autograd.graph.increment_version(gradient)  # a second backward pass is refused, not scaled twice
            out.append(fresh)
        return (*out, *(None,) * 10)


def _recompute(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Gradients for token losses: logits again, chunk by chunk, with each row's upstream gradient."""
    hidden, weight, labels, weights, row_max, row_sum = ctx.saved_tensors
    o: LossOptions = ctx.o
    live = _live_rows(labels, weights, o)
    rows = (hidden, labels, weights, row_max, row_sum, upstream.contiguous())
    x, y, w, m, d, u = rows if live is None else tuple(t[live] for t in rows)
    chunks = _Chunks(x, weight, ctx.rows, ctx.needs_input_grad[0], ctx.needs_input_grad[1])
    for c, logits in chunks:
        ctx.backend.gradient(logits, logits, y[c], w[c], u[c], m[c], d[c], o)
        chunks.add(c, logits, o.group)
    d_hidden, d_weight = chunks.finish()
    if d_hidden is not None and live is not None:
        d_hidden = torch.zeros_like(hidden).index_copy_(0, live, d_hidden)
    return d_hidden, None if d_weight is None else d_weight.to(weight.dtype)


def _live_rows(labels: Tensor, weights: Tensor, o: LossOptions) -> Tensor | None:
    """Rows that carry loss, where finding them needs no host sync (CPU); None: all, the kernels skip the rest."""
    if labels.device.type != "cpu":
        return None
    keep = (labels != o.ignore_index) & (weights != 0)
    return None if bool(keep.all()) else keep.nonzero().flatten()


def _scatter(whole: Tensor, values: Tensor, live: Tensor | None) -> None:
    if live is None:
        whole.copy_(values)
    else:
        whole.index_copy_(0, live, values)
