"""Torch backend, the CPU path: the steps of options.Backend in torch ops, through torch.compile where that pays.

Large inputs go through torch.compile (Inductor writes one vectorised C++ loop a row, the row stays in the L2 cache
between the maximum and the sum); small ones, and machines without a C++ compiler, run eagerly in chunks of rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sdrrl_kernels.options import LossOptions, Totals, is_bad

log = logging.getLogger(__name__)

CHUNK_ELEMENTS = 1 << 22
"""fp32 elements the eager path works on at a time: rows are independent, so temporary memory stays at 16 MiB."""

COMPILE_ELEMENTS = 1 << 23
"""Smallest logits worth the ~10 s of compiling, once a dtype and machine (Inductor caches the result on disk)."""


# --- the loops; x is a block of rows, valid columns only -----------------------------------------------------------
def _scan(x: Tensor) -> tuple[Tensor, Tensor]:
    xf = x.float()
    m = xf.amax(1)
    # a slice of the vocabulary may be all -inf: exp(-inf - -inf) would be nan
    safe = torch.where(m == float("-inf"), 0.0, m)
    return m, (xf - safe[:, None]).exp().sum(1)


def _scan_smooth(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    m, d = _scan(x)
    return m, d, x.float().sum(1)


def _capped(x: Tensor, cap: Tensor) -> Tensor:
    return cap[:, None] * torch.tanh(x.float() / cap[:, None])


def _scan_capped(x: Tensor, cap: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _scan_smooth(_capped(x, cap))


def _gradient(x: Tensor, row_max: Tensor, factor: Tensor, uniform: Tensor, scale: Tensor) -> Tensor:
    # factor and scale stay apart: folding them costs a rounding of a probability near 1
    g = ((x.float() - row_max[:, None]).exp() * factor[:, None] - uniform[:, None]) * scale[:, None]
    # a row nobody asks for may hold inf or nan logits; 0 * nan must not leak into the gradient
    return torch.where(scale[:, None] == 0, 0.0, g)


def _gradient_in_place(x: Tensor, row_max: Tensor, factor: Tensor, uniform: Tensor, scale: Tensor) -> None:
    x.copy_(_gradient(x, row_max, factor, uniform, scale))


def _gradient_into(x: Tensor, out: Tensor, row_max: Tensor, factor: Tensor, uniform: Tensor, scale: Tensor) -> None:
    """For two buffers; given the same one twice, torch.compile would copy it instead."""
    out.copy_(_gradient(x, row_max, factor, uniform, scale))


def _gradient_capped_into(
    x: Tensor, out: Tensor, row_max: Tensor, factor: Tensor, uniform: Tensor, scale: Tensor, cap: Tensor
) -> None:
    v = _capped(x, cap)
    g = _gradient(v, row_max, factor, uniform, scale) * (1 - (v / cap[:, None]) ** 2)
    out.copy_(torch.where(scale[:, None] == 0, 0.0, g))


def _gradient_capped_in_place(
    x: Tensor, row_max: Tensor, factor: Tensor, uniform: Tensor, scale: Tensor, cap: Tensor
) -> None:
    _gradient_capped_into(x, x, row_max, factor, uniform, scale, cap)


def _scan_and_write(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum and sum of exponentials, and x = scale * softmax, in one go (no smoothing, no z-loss)."""
    m, d = _scan(x)
    _gradient_in_place(x, m, 1 / d, torch.zeros_like(d), scale)
    return m, d


@cache
def _compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """``loop`` through torch.compile; the first failure (say, no C++ compiler) makes it the eager loop for good."""
    fast = torch.compile(loop, dynamic=True)
    state: dict[str, Callable[..., Any]] = {"run": fast}

    def run(*args: Tensor) -> Any:
        try:
            return state["run"](*args)
        except Exception as e:
            if state["run"] is loop:
                raise
            log.warning("torch.compile failed, the loss runs eagerly and slower: %s", str(e).splitlines()[0])
            state["run"] = loop
            return loop(*args)

    return run


def _by_rows(loop: Callable[..., Any], x: Tensor, *rest: Tensor) -> Any:
    """Run ``loop`` over all rows at once when compiled, else chunk by chunk; every argument is cut along its rows."""
    n = x.shape[0]
    # a compiler that traces us, and sizes 0 and 1, which it would specialise on, are for the eager loop
    if x.numel() >= COMPILE_ELEMENTS and n > 1 and x.device.type == "cpu" and not torch.compiler.is_compiling():
        return _compiled(loop)(x, *rest)
    rows = max(1, CHUNK_ELEMENTS // max(1, x.shape[1]))
    parts = [loop(*(t[i : i + rows] for t in (x, *rest))) for i in range(0, n, rows)]
    if not parts or parts[0] is None:
        return None
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


# --- the steps of options.Backend ----------------------------------------------------------------------------------
def _vocabulary(logits: Tensor, o: LossOptions) -> Tensor:
    return logits if o.valid == logits.shape[1] else logits[:, : o.valid]


def _skip(labels: Tensor, weights: Tensor, o: LossOptions) -> Tensor:
    return (labels == o.ignore_index) | (weights == 0)


def _own(labels: Tensor, o: LossOptions, skip: Tensor) -> tuple[Tensor, Tensor]:
    """(rows whose label is in this rank's slice, the label's column there or 0)."""
    local = labels.long() - o.vocab_start
    own = ~skip & (local >= 0) & (local < o.valid)
    return own, torch.where(own, local, 0)


def _label_logit(logits: Tensor, labels: Tensor, o: LossOptions, skip: Tensor) -> Tensor:
    own, column = _own(labels, o, skip)
    picked = logits.gather(1, column[:, None]).squeeze(1).float()
    return torch.where(own, o.softcap * torch.tanh(picked / o.softcap) if o.softcap else picked, 0.0)


def statistics(logits: Tensor, labels: Tensor, weights: Tensor, o: LossOptions) -> Tensor:
    n = logits.shape[0]
    part = torch.zeros((o.statistics, n), dtype=torch.float32, device=logits.device)
    skip = _skip(labels, weights, o)
    if not o.valid or not n:
        part[0] = torch.where(skip, 0.0, float("-inf"))
        part[1] = skip.float()
        return part
    if o.softcap:
        found = _by_rows(_scan_capped, _vocabulary(logits, o), torch.full((n,), o.softcap, device=logits.device))
    else:
        found = _by_rows(_scan_smooth if o.label_smoothing else _scan, _vocabulary(logits, o))
    part[0] = torch.where(skip, 0.0, found[0])
    part[1] = torch.where(skip, 1.0, found[1])
    part[2] = _label_logit(logits, labels, o, skip)
    if o.label_smoothing:
        part[3] = torch.where(skip, 0.0, found[2])
    return part


def _token_loss(
    row_max: Tensor, row_sum: Tensor, label_logit: Tensor, logit_sum: Tensor | None, weights: Tensor, o: LossOptions
) -> Tensor:
    log_sum = row_sum.log()
    loss = log_sum - (label_logit - row_max)
    if logit_sum is not None:
        spread = log_sum - (logit_sum / o.vocab_size - row_max)
        loss = (1 - o.label_smoothing) * loss + o.label_smoothing * spread
    if o.z_loss:
        loss = loss + o.z_loss * (row_max + log_sum) ** 2
    return loss * weights


def finish(parts: Tensor, labels: Tensor, weights: Tensor, o: LossOptions) -> tuple[Tensor, Tensor, Tensor]:
    row_max = parts[:, 0].amax(0)
    safe = torch.where(row_max == float("-inf"), 0.0, row_max)
    row_sum = (parts[:, 1] * (parts[:, 0] - safe).exp()).sum(0)
    logit_sum = parts[:, 3].sum(0) if o.label_smoothing else None
    label_logit = torch.where(is_bad(labels, weights, o, len(parts)), float("nan"), parts[:, 2].sum(0))
    token = _token_loss(row_max, row_sum, label_logit, logit_sum, weights, o)
    return torch.where(_skip(labels, weights, o), 0.0, token), row_max, row_sum


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
    if o.valid < logits.shape[1]:
        out[:, o.valid :] = 0
    if not o.valid or not logits.shape[0]:
        return
    skip = _skip(labels, weights, o)
    scale = torch.where(skip, 0.0, weights * upstream)
    growth = 1 + 2 * o.z_loss * (row_max + row_sum.log()) if o.z_loss else 1.0
    factor = growth / row_sum
    uniform = torch.full_like(scale, o.label_smoothing / o.vocab_size)
    own, column = _own(labels, o, skip)
    picked = logits.gather(1, column[:, None]).squeeze(1).float()
    slope: Tensor | float = 1.0
    rest = [row_max, factor, uniform, scale]
    in_place: Callable[..., None] = _gradient_in_place
    into: Callable[..., None] = _gradient_into
    if o.softcap:
        picked = o.softcap * torch.tanh(picked / o.softcap)
        slope = 1 - (picked / o.softcap) ** 2
        rest.append(torch.full_like(scale, o.softcap))
        in_place, into = _gradient_capped_in_place, _gradient_capped_into
    # the label's entry is finished in fp32 before its one rounding, and put in after the loop over the row
    at_label = ((picked - row_max).exp() * factor - uniform - (1 - o.label_smoothing)) * scale * slope
    if out.data_ptr() == logits.data_ptr():
        _by_rows(in_place, _vocabulary(logits, o), *rest)
    else:
        _by_rows(into, _vocabulary(logits, o), _vocabulary(out, o), *rest)
    _put_label(out, own, column, at_label)


def _put_label(out: Tensor, own: Tensor, column: Tensor, value: Tensor) -> None:
    rows = torch.arange(out.shape[0], device=out.device)
    # not scatter_: on CPU it works on an fp32 copy of all of a half-precision tensor
    out[rows, column] = torch.where(own, value.to(out.dtype), out[rows, column])


def one_pass(
    logits: Tensor, labels: Tensor, weights: Tensor, upstream: float, o: LossOptions
) -> tuple[Tensor, Tensor, Tensor]:
    if o.label_smoothing or o.z_loss or o.softcap or not o.valid or not logits.shape[0]:
        token, row_max, row_sum = finish(statistics(logits, labels, weights, o)[None], labels, weights, o)
        known = torch.tensor(upstream, device=logits.device)
        gradient(logits, logits, labels, weights, known, row_max, row_sum, o)
        return token, row_max, row_sum
    skip = _skip(labels, weights, o)
    scale = torch.where(skip, 0.0, weights * upstream)
    own, column = _own(labels, o, skip)
    label_logit = logits.gather(1, column[:, None]).squeeze(1).float()
    row_max, row_sum = _by_rows(_scan_and_write, _vocabulary(logits, o), scale)
    if o.valid < logits.shape[1]:
        logits[:, o.valid :] = 0
    _put_label(logits, own, column, ((label_logit - row_max).exp() * (1 / row_sum) - 1) * scale)
    token = _token_loss(row_max, row_sum, torch.where(own, label_logit, float("nan")), None, weights, o)
    return torch.where(skip, 0.0, token), torch.where(skip, 0.0, row_max), torch.where(skip, 1.0, row_sum)


def totals(token: Tensor, labels: Tensor, subset_ids: Tensor, num_subsets: int, ignore_index: int) -> Totals:
    kept = (labels != ignore_index) & (subset_ids >= 0) & (subset_ids < num_subsets)
    slot = torch.where(kept, subset_ids.long(), num_subsets)
    sums = torch.zeros(num_subsets + 1, dtype=torch.float64, device=token.device).index_add_(0, slot, token.double())
    counts = torch.zeros(num_subsets + 1, dtype=torch.int64, device=token.device)
    counts.index_add_(0, slot, torch.ones_like(slot))
    return Totals(token.double().sum().float(), sums[:num_subsets].float(), counts[:num_subsets])


def rescale(gradient: Tensor, upstream: Tensor, expected: float) -> None:
    if gradient.device.type == "cpu" and float(upstream) == expected:
        return
    gradient.mul_(upstream.float() / expected)
