"""Chunked output projection + cross-entropy: the logits of all tokens never exist at once.

For a chunk of rows: logits = hidden @ weight.T [+ bias], loss, logits -> their gradient in place, gradient @ weight
into the hidden states' gradient, gradient.T @ hidden into the weight's and the sum of its rows into the bias's, which
are summed in fp32 over chunks: in Megatron's own fp32 sum over micro-batches where that is asked for, else in a buffer.
The per-token weights are inside, before that sum over tokens; multiplied on afterwards they would be silently wrong.
Vocab-parallel: one all-gather of three numbers a row a chunk, and the hidden states' gradient summed over ranks while
the next chunk is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sdrrl_kernels.cross_entropy import logsumexp_of
from sdrrl_kernels.options import Backend, LossOptions, exchange

CHUNK_MIB = {"cpu": 32, "cuda": 512}
"""Logits of a chunk in MiB, where the caller names no number. Larger: fewer passes over the weight's gradient."""

OPERATIONS_A_BYTE = {"cpu": 128, "cuda": 256}
"""Operations that a processor makes while its memory moves a byte: 16-bit products of an A100 153, H200 206, B200 281,
H100 295 (peaks of their data sheets); on a CPU, where 512 rows a chunk are as fast as more."""

LINE = 64
"""Columns of the logits' buffer are a multiple of it: 128 bytes in 16 bits."""

BLOCK = 8192
"""Rows of the weight's gradient that one product makes where it cannot be added up inside the product."""

Triple = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Something of the hidden states, of the weight and of the bias, in this order."""


def chunk_rows(n: int, columns: int, itemsize: int, device: str, mib: int | None = None, extra_width: int = 0) -> int:
    """Rows a chunk: as many as have ``mib`` MiB of logits (None: CHUNK_MIB), in chunks of about equal size.

    Never so few that the products wait for memory: r rows make 2r operations for each element of the weight's fp32
    gradient, and read and write its 8 bytes, so r must be at least 4 * OPERATIONS_A_BYTE, whatever ``mib`` says.

    Args:
        extra_width: H where several chunks need a buffer [columns, H] in fp32 that a single one does not; all ``n``
            rows are then one chunk where chunks and buffer would not save a quarter of the logits. 0: none is needed.
    """
    limit = (mib or CHUNK_MIB.get(device, CHUNK_MIB["cuda"])) << 20
    least = 4 * OPERATIONS_A_BYTE.get(device, OPERATIONS_A_BYTE["cuda"])
    fit = max(least, limit // max(1, columns * itemsize) // 64 * 64)
    if n <= fit or (extra_width and fit * itemsize + 4 * extra_width > 0.75 * n * itemsize):
        return max(1, n)
    chunks = -(-n // fit)
    return -(-n // chunks // 64) * 64  # matrix products are slower where rows are no multiple of 64


class _Chunks:
    """One sweep over the rows: a logits buffer used again and again, and the gradients it adds to."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: int, needs: Sequence[bool], mains: Triple
    ) -> None:
        self.hidden, self.weight, self.bias, self.rows = hidden, weight, bias, rows
        n = hidden.shape[0]
        # rows start at whole memory lines whatever the vocabulary is; columns behind it are padding to the backend
        self.buffer = hidden.new_empty((min(rows, n), -(-weight.shape[0] // LINE) * LINE))
        self.d_hidden = torch.empty_like(hidden) if needs[0] else None
        _, self.main, self.main_bias = mains
        self.d_weight, self.d_bias = self.main, self.main_bias
        if needs[1] and self.main is None:
            # a single product is rounded once to the weight's dtype, without an fp32 sum
            dtype = weight.dtype if n <= rows else torch.float32
            self.d_weight = torch.empty_like(weight, dtype=dtype) if n else torch.zeros_like(weight)
        if needs[2] and bias is not None and self.main_bias is None:
            self.d_bias = torch.zeros_like(bias, dtype=torch.float32)
        self.pending: list[Any] = []

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        n, columns = self.hidden.shape[0], self.weight.shape[0]
        for start in range(0, n, self.rows):
            c = slice(start, min(start + self.rows, n))
            logits = self.buffer[: c.stop - c.start]
            if self.bias is None:
                torch.mm(self.hidden[c], self.weight.t(), out=logits[:, :columns])
            else:  # inside the product: rounded once together with it
                torch.addmm(self.bias, self.hidden[c], self.weight.t(), out=logits[:, :columns])
            yield c, logits

    def add(self, c: slice, gradient: Tensor, group: dist.ProcessGroup | None) -> None:
        """Project the gradient of a chunk's logits, as wide as the buffer, onto hidden states, weight and bias."""
        gradient = gradient[:, : self.weight.shape[0]]
        if self.d_hidden is not None:
            part = self.d_hidden[c]
            torch.mm(gradient, self.weight, out=part)
            if group is not None:
                self.pending.append(dist.all_reduce(part, group=group, async_op=True))
        if self.d_weight is not None:
            _accumulate(self.d_weight, gradient, self.hidden[c], first=self.main is None and c.start == 0)
        if self.d_bias is not None:
            for start in range(0, len(self.d_bias), BLOCK):  # on a CPU the sum works on an fp32 copy
                block = slice(start, start + BLOCK)
                self.d_bias[block] += gradient[:, block].sum(0, dtype=torch.float32)

    def finish(self) -> Triple:
        """Gradients of hidden states, weight and bias; None where one has been added to Megatron's sum."""
        for work in self.pending:
            work.wait()
        # the sum over chunks is done, so one rounding to the weight's dtype is all that is lost
        d_weight, d_bias = (
            None if total is None or main is not None else total.to(self.weight.dtype)
            for total, main in ((self.d_weight, self.main), (self.d_bias, self.main_bias))
        )
        return self.d_hidden, d_weight, d_bias


def widening(device: str, torch_version: str) -> str:
    """How a product of 16-bit matrices gets into an fp32 sum without a rounding to 16 bits on its way.

    ``addmm``: added up inside the product, which takes an fp32 summand from torch 2.10 on. ``mm``: torch 2.9 gives only
    the product itself in fp32. ``cast``: neither exists off CUDA, so the factors are made fp32.
    """
    if device != "cuda":
        return "cast"
    return "addmm" if tuple(int(x) for x in torch_version.split(".")[:2]) >= (2, 10) else "mm"


def _accumulate(total: Tensor, gradient: Tensor, hidden: Tensor, first: bool) -> None:
    """total [V, H] += gradient.T @ hidden, or = for the first chunk; products of fp32 precision where total has it."""
    beta = 0 if first else 1
    if total.dtype == gradient.dtype:
        torch.addmm(total, gradient.t(), hidden, beta=beta, out=total)
        return
    way = widening(total.device.type, torch.__version__)
    if way == "addmm":
        torch.addmm(total, gradient.t(), hidden, beta=beta, out_dtype=torch.float32, out=total)
        return
    hidden = hidden.float() if way == "cast" else hidden
    for start in range(0, total.shape[0], BLOCK):
        part, factor = total[start : start + BLOCK], gradient[:, start : start + BLOCK]
        if way == "cast":
            torch.addmm(part, factor.float().t(), hidden, beta=beta, out=part)
        else:
            product = torch.mm(factor.t(), hidden, out_dtype=torch.float32)
            if first:
                part.copy_(product)
            else:
                part.add_(product)


def main_gradient(weight: Tensor) -> Tensor | None:
    """Megatron's sum over micro-batches, where the weight (or bias) has one and it is in fp32."""
    found = getattr(weight, "main_grad", None)
    fits = isinstance(found, Tensor) and found.shape == weight.shape and found.dtype == torch.float32
    return found if fits else None


def _handed_over(weight: Any) -> Tensor | None:
    """What autograd gets for a weight whose gradient is in ``main_grad`` already, as in Megatron's linear layers.

    Megatron's DistributedDataParallel leaves ``weight.grad`` out of its sum where ``grad_added_to_main_grad`` is set,
    unless the weight is an input embedding too (``zero_out_wgrad``); where it overlaps communication it wants one to be
    there. A sparse tensor without entries is a zero in both cases, and takes no memory.
    """
    if not hasattr(weight, "grad_added_to_main_grad"):
        return None
    weight.grad_added_to_main_grad = True
    nowhere = torch.empty((weight.dim(), 0), dtype=torch.int64, device=weight.device)
    return torch.sparse_coo_tensor(nowhere, weight.new_empty(0), weight.shape, check_invariants=False)


class LinearCrossEntropy(torch.autograd.Function):
    """(hidden [n, H], weight [V/tp, H], bias [V/tp] or None, ...) -> (loss or token losses, subset_sums, subset_counts,
    logsumexp or empty).

    reduction "sum": gradients are made in the forward pass for the upstream gradient ``expected``, and rescaled in the
    backward pass should another one come. reduction "none": each token has its own, so the backward pass computes the
    logits a second time and gives every row its factor before the sum over rows.
    ``into_main``: the gradients of weight and bias are added to their ``main_grad`` where they are made, if they have
    one in fp32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
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
        into_main: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.o, ctx.backend, ctx.expected, ctx.rows = o, backend, expected, rows
        needs = ctx.needs_input_grad[:3]
        ctx.owners = (None, *(t if into_main and need else None for t, need in ((weight, needs[1]), (bias, needs[2]))))
        ctx.mains = tuple(None if t is None else main_gradient(t) for t in ctx.owners)
        ctx.recompute = reduction == "none" and any(needs)
        now = not ctx.recompute and any(needs)
        n = hidden.shape[0]
        token = torch.zeros(n, dtype=torch.float32, device=hidden.device)
        row_max, row_sum = torch.zeros_like(token), torch.ones_like(token)
        live = _live_rows(labels, weights, o)
        x, y, w = (hidden, labels, weights) if live is None else (hidden[live], labels[live], weights[live])
        chunks = _Chunks(x, weight, bias, rows, needs if now else (False,) * 3, ctx.mains if now else (None,) * 3)
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
            ctx.save_for_backward(hidden, weight, bias, labels, weights, row_max, row_sum)
        elif now:
            d_hidden, *rest = chunks.finish()
            if d_hidden is not None and live is not None:
                d_hidden = torch.zeros_like(hidden).index_copy_(0, live, d_hidden)
            ctx.save_for_backward(d_hidden, *rest)
        return (token if reduction == "none" else loss), sums, counts, lse

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        if ctx.recompute:
            return (*_recompute(ctx, upstream[0]), *(None,) * 11)
        promised = any(main is not None for main in ctx.mains)
        factor = _as_promised(upstream[0], ctx.expected) if promised else upstream[0]
        out: list[Tensor | None] = []
        for gradient in ctx.saved_tensors:
            if gradient is None:
                out.append(None)
                continue
            fresh = gradient.detach()
            ctx.backend.rescale(fresh if fresh.dim() == 2 else fresh[None], factor, ctx.expected)
            torch.autograd.graph.increment_version(gradient)  # a second backward pass is refused, not scaled twice
            out.append(fresh)
        return (*_with_handed_over(ctx, out), *(None,) * 11)


def _with_handed_over(ctx: Any, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """``gradients``, with what autograd gets in the place of those that are in ``main_grad``."""
    return [
        g if main is None else _handed_over(owner)
        for g, main, owner in zip(gradients, ctx.mains, ctx.owners, strict=True)
    ]


def _as_promised(upstream: Tensor, expected: float) -> Tensor:
    """``upstream``, or NaN where it is not the one that the weight's gradient was added to the others' for.

    Nothing can take that addend out again. A GPU is not waited for, so there the hidden states' gradient becomes NaN.
    """
    if upstream.device.type == "cpu" and float(upstream) != expected:
        raise ValueError(
            f"the weight's gradient is in main_grad for an upstream gradient of {expected}, and {float(upstream)} "
            "arrived; pass the right expected_upstream, or into_main_grad=False"
        )
    return torch.where(upstream == expected, upstream, torch.nan)


def _recompute(ctx: Any, upstream: Tensor) -> list[Tensor | None]:
    """Gradients for token losses: logits again, chunk by chunk, with each row's upstream gradient."""
    hidden, weight, bias, labels, weights, row_max, row_sum = ctx.saved_tensors
    o: LossOptions = ctx.o
    live = _live_rows(labels, weights, o)
    rows = (hidden, labels, weights, row_max, row_sum, upstream.contiguous())
    x, y, w, m, d, u = rows if live is None else tuple(t[live] for t in rows)
    chunks = _Chunks(x, weight, bias, ctx.rows, ctx.needs_input_grad[:3], ctx.mains)
    for c, logits in chunks:
        ctx.backend.gradient(logits, logits, y[c], w[c], u[c], m[c], d[c], o)
        chunks.add(c, logits, o.group)
    d_hidden, *rest = chunks.finish()
    if d_hidden is not None and live is not None:
        d_hidden = torch.zeros_like(hidden).index_copy_(0, live, d_hidden)
    return _with_handed_over(ctx, (d_hidden, *rest))


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
