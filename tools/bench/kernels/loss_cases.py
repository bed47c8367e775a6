"""Inputs of one measurement of the loss, its peak memory, and how far a weight's gradient is from float64.

Letters: n rows (tokens), V vocabulary, H hidden size. The same seed, hence the same numbers, for every implementation.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sdrrl_kernels.reference import IGNORE_INDEX

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SUBSETS = 6
SAMPLED = 256
"""Rows of the weight whose gradient is compared with float64; half of them belong to labels."""
ROWS = 512
"""Rows of float64 logits that exist at a time while a reference is made."""


class Case:
    """Tensors of one flow: ``logits`` starts at given logits, ``linear`` at hidden states and the output weight.

    ``live``: share of the rows that carry loss; the others have the ignored label and weight 0. ``grad``: whether the
    backward pass is wanted.
    """

    def __init__(
        self, device: str, dtype: str, n: int, vocab: int, width: int, flow: str, live: float = 1.0, grad: bool = True
    ) -> None:
        g = torch.Generator(device=device).manual_seed(0)
        t = DTYPES[dtype]
        self.flow, self.device, self.grad = flow, device, grad
        self.loss: float | None = None
        """Of the first step: the later ones of the flow ``logits`` may start from overwritten logits."""
        self.labels = torch.randint(0, vocab, (n,), generator=g, device=device)
        self.weights = torch.rand(n, generator=g, device=device)
        self.subset = torch.randint(0, SUBSETS, (n,), generator=g, device=device)
        if live < 1:
            dead = torch.rand(n, generator=g, device=device) >= live
            self.labels[dead], self.weights[dead] = IGNORE_INDEX, 0.0
        if flow == "linear":
            self.hidden = torch.randn(n, width, generator=g, device=device, dtype=t).requires_grad_(grad)
            self.weight = torch.randn(vocab, width, generator=g, device=device, dtype=t).mul_(width**-0.5)
            self.weight.requires_grad_(grad)
        else:
            self.logits = torch.randn(n, vocab, generator=g, device=device, dtype=t) * 2

    def clear(self) -> None:
        if self.flow == "linear":
            self.hidden.grad = self.weight.grad = None

    def own_logits(self) -> Tensor:
        """The given logits as an output layer would hand them over; their buffer may become their gradient."""
        if not self.grad:
            return self.logits
        anchor = torch.zeros((), dtype=self.logits.dtype, device=self.device, requires_grad=True)
        return _OutputLayer.apply(anchor, self.logits)  # type: ignore[no-any-return]

    def logits_of_any_flow(self) -> Tensor:
        return self.hidden @ self.weight.t() if self.flow == "linear" else self.own_logits()

    def finish(self, loss: Tensor) -> Tensor:
        """The backward pass, where gradients are asked for."""
        if self.grad:
            loss.backward()
        self.loss = self.loss if self.loss is not None else float(loss.detach())
        return loss


class _OutputLayer(torch.autograd.Function):
    """Hands over given logits: no leaf, their own memory, no copy of their gradient."""

    @staticmethod
    def forward(ctx: object, anchor: Tensor, logits: Tensor) -> Tensor:  # type: ignore[override]
        return logits.new_empty(0).set_(logits.untyped_storage(), 0, logits.shape, logits.stride())

    @staticmethod
    def backward(ctx: object, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return g.new_zeros(()), None


class Peak:
    """Peak memory above the moment of entry, bytes; on CPU sampled every millisecond from the resident set."""

    def __init__(self, device: str) -> None:
        self.device, self.bytes = device, 0

    def _resident(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def __enter__(self) -> Peak:
        gc.collect()
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.base = torch.cuda.memory_allocated()
            return self
        self.base = self._resident()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.stop.wait(0.001):
            self.bytes = max(self.bytes, self._resident() - self.base)

    def __exit__(self, *_: object) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
            self.bytes = torch.cuda.max_memory_allocated() - self.base
        else:
            self.stop.set()
            self.thread.join()


def sampled_rows(labels: Tensor, vocab: int) -> Tensor:
    """int64 [<= SAMPLED]: vocabulary entries, half of them labels, whose gradient is large, half taken evenly."""
    known = labels[labels != IGNORE_INDEX][: SAMPLED // 2]
    return torch.cat([known, torch.linspace(0, vocab - 1, SAMPLED // 2, device=labels.device).long()]).unique()


def weight_gradient(case: Case, rows: Tensor, weighted: bool) -> Tensor:
    """float64 [rows, H] on the CPU: the gradient of sum_i w_i * cross-entropy_i (w_i = 1 unless ``weighted``)."""
    hidden, weight = case.hidden.detach().double(), case.weight.detach().double()
    total = torch.zeros(len(rows), hidden.shape[1], dtype=torch.float64, device=case.device)
    live = (case.labels != IGNORE_INDEX).nonzero().flatten()
    for chunk in live.split(ROWS):
        x, y = hidden[chunk], case.labels[chunk]
        logits = x @ weight.t()
        p = (logits[:, rows] - logits.logsumexp(1, keepdim=True)).exp() - (y[:, None] == rows).double()
        total += (p * case.weights[chunk].double()[:, None] if weighted else p).t() @ x
    return total.cpu()


def gradient_error(case: Case, weighted: bool, keep: Path | None) -> float:
    """Relative Frobenius error of ``case.weight.grad`` over the sampled rows; references are kept in the file ``keep``.

    ``weighted`` says what the implementation sums: peers without per-token weights are held to the plain sum.
    """
    rows = sampled_rows(case.labels, case.weight.shape[0])
    known: dict[str, Tensor] = torch.load(keep) if keep is not None and keep.is_file() else {}
    name = "weighted" if weighted else "plain"
    if name not in known:
        known[name] = weight_gradient(case, rows, weighted)
        if keep is not None:
            keep.parent.mkdir(parents=True, exist_ok=True)
            torch.save(known, keep)
    found = case.weight.grad
    if found is None:
        return float("nan")
    return float((found[rows].double().cpu() - known[name]).norm() / known[name].norm())


def plain_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """torch's own: fp32 logits, token losses, weighted sum."""
    return (F.cross_entropy(logits.float(), labels, reduction="none") * weights).sum()


Step = Callable[[Case], Tensor]
"""Loss and, where the case asks for it, its gradients; returns the loss []."""
