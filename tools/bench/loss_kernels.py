#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Time and peak memory of the loss against torch, torch.compile and other projects' formulas, one run, one table.

    python tools/bench/loss_kernels.py --device cpu  --output work/bench/kernels_cpu.jsonl
    python tools/bench/loss_kernels.py --device cuda --output work/bench/kernels_cuda.jsonl

Every case runs in a process of its own (a clean allocator and peak counter). Two flows: ``logits`` (loss and gradient
of given logits) and ``linear`` (output projection included: gradients of hidden states and weight). Time is the median
of the repetitions after warm-up, with the 20th and 80th percentile beside it, as in Liger-Kernel's benchmarks.
Memory is the peak above the inputs: allocator statistics on CUDA, the process's high-water mark on CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "kernels"))

from sdrrl_kernels.api import cross_entropy, linear_cross_entropy
from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SUBSETS = 6


class Case:
    """Inputs of one measurement; the same seed, hence the same numbers, for every implementation."""

    def __init__(self, device: str, dtype: str, n: int, vocab: int, width: int, flow: str) -> None:
        g = torch.Generator(device=device).manual_seed(0)
        t = DTYPES[dtype]
        self.flow, self.device = flow, device
        self.labels = torch.randint(0, vocab, (n,), generator=g, device=device)
        self.weights = torch.rand(n, generator=g, device=device)
        self.subset = torch.randint(0, SUBSETS, (n,), generator=g, device=device)
        if flow == "linear":
            self.hidden = torch.randn(n, width, generator=g, device=device, dtype=t).requires_grad_()
            self.weight = (
                torch.randn(vocab, width, generator=g, device=device, dtype=t) * width**-0.5
            ).requires_grad_()
        else:
            self.logits = torch.randn(n, vocab, generator=g, device=device, dtype=t) * 2

    def clear(self) -> None:
        if self.flow == "linear":
            self.hidden.grad = self.weight.grad = None


def _ours(case: Case, expected: float | None = None) -> Tensor:
    if case.flow == "linear":
        out = linear_cross_entropy(case.hidden, case.weight, case.labels, case.weights, case.subset, SUBSETS)
    else:
        # the buffer takes the gradient, as in training; its values do not matter for time
        logits = _non_leaf(case.logits)
        out = cross_entropy(logits, case.labels, case.weights, case.subset, SUBSETS, expected_upstream=expected)
    out.loss.backward()
    return out.loss


class _OutputLayer(torch.autograd.Function):
    """Hands over given logits as an output layer would: no leaf, their own memory, no copy of their gradient."""

    @staticmethod
    def forward(ctx: object, anchor: Tensor, logits: Tensor) -> Tensor:  # type: ignore[override]
        return logits.new_empty(0).set_(logits.untyped_storage(), 0, logits.shape, logits.stride())

    @staticmethod
    def backward(ctx: object, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return g.new_zeros(()), None


def _non_leaf(x: Tensor) -> Tensor:
    anchor = torch.zeros((), dtype=x.dtype, device=x.device, requires_grad=True)
    return _OutputLayer.apply(anchor, x)  # type: ignore[no-any-return]


def _weighted_mean_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return (F.cross_entropy(logits.float(), labels, reduction="none") * weights).sum()


def _peer(case: Case, loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    logits = case.hidden @ case.weight.t() if case.flow == "linear" else _non_leaf(case.logits)
    value = loss(logits, case.labels, case.weights)
    value.backward()
    return value


def _compiled_linear(hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return _weighted_mean_loss(hidden @ weight.t(), labels, weights)


_compiled_loss = torch.compile(_weighted_mean_loss)
_compiled_linear_loss = torch.compile(_compiled_linear)


def _torch_compile(case: Case) -> Tensor:
    if case.flow == "linear":
        value: Tensor = _compiled_linear_loss(case.hidden, case.weight, case.labels, case.weights)
        value.backward()
        return value
    return _peer(case, _compiled_loss)


class _ChunkedLinear(torch.autograd.Function):
    """Liger-Kernel's fused linear form in torch ops: its chunk rule, gradient in place, the weight's in its dtype."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor
    ) -> Tensor:
        n, width = hidden.shape
        share = -(-weight.shape[0] // width)
        rows = 1 << (-(-n // share) - 1).bit_length()
        d_hidden, d_weight = torch.zeros_like(hidden), torch.zeros_like(weight)
        total = hidden.new_zeros((), dtype=torch.float32)
        for i in range(0, n, rows):
            c = slice(i, i + rows)
            logits = hidden[c] @ weight.t()
            total += _loss_in_place(logits, labels[c], weights[c])
            d_hidden[c] = logits @ weight
            d_weight += logits.t() @ hidden[c]
        ctx.save_for_backward(d_hidden, d_weight)
        return total

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def, override]
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * g, d_weight * g, None, None


def _loss_in_place(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Loss of the rows; logits become their gradient."""
    x = logits.float()
    lse = torch.logsumexp(x, 1)
    picked = x.gather(1, labels[:, None]).squeeze(1)
    x.sub_(lse[:, None]).exp_()
    x.scatter_add_(1, labels[:, None], torch.full_like(labels, -1, dtype=x.dtype)[:, None])
    logits.copy_(x.mul_(weights[:, None]))
    return ((lse - picked) * weights).sum()


class _InPlace(torch.autograd.Function):
    """Liger-Kernel's cross-entropy in torch ops: the gradient overwrites the logits in the forward pass."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        total = _loss_in_place(logits, labels, weights)
        ctx.save_for_backward(logits.detach())
        return total

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def, override]
        return ctx.saved_tensors[0].mul_(g), None, None


def _liger_math(case: Case) -> Tensor:
    if case.flow == "linear":
        value: Tensor = _ChunkedLinear.apply(case.hidden, case.weight, case.labels, case.weights)
        value.backward()
        return value
    return _peer(case, _InPlace.apply)


def _cce_fallback(hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Formula of ml-cross-entropy's torch_compile implementation: fp32 logits, logsumexp, nll_loss."""
    logits = (hidden @ weight.t()).float()
    return (F.nll_loss(logits - torch.logsumexp(logits, -1, keepdim=True), labels, reduction="none") * weights).sum()


_cce_compiled = torch.compile(_cce_fallback, fullgraph=True)


def _cce(case: Case) -> Tensor:
    value: Tensor = _cce_compiled(case.hidden, case.weight, case.labels, case.weights)
    value.backward()
    return value


IMPLEMENTATIONS: dict[str, dict[str, Callable[[Case], Tensor]]] = {
    "logits": {
        "ours": _ours,
        "ours one pass": lambda c: _ours(c, 1.0),
        "torch eager": lambda c: _peer(c, _weighted_mean_loss),
        "torch.compile": _torch_compile,
        "Liger math": _liger_math,
    },
    "linear": {
        "ours": _ours,
        "torch eager": lambda c: _peer(c, _weighted_mean_loss),
        "torch.compile": _torch_compile,
        "Liger math": _liger_math,
        "CCE fallback": _cce,
    },
}


class _Peak:
    """Peak memory above the moment of entry, bytes; on CPU sampled every millisecond from the resident set."""

    def __init__(self, device: str) -> None:
        self.device, self.bytes = device, 0

    def _resident(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def __enter__(self) -> _Peak:
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


def measure(args: argparse.Namespace) -> dict[str, object]:
    """One case in this process: milliseconds, peak memory and loss of ``args.only``."""
    torch.set_num_threads(args.threads)
    case = Case(args.device, args.dtype, args.n, args.vocab, args.width, args.flow)
    step = IMPLEMENTATIONS[args.flow][args.only]
    start = time.perf_counter()
    loss = step(case)
    first = time.perf_counter() - start
    step(case)
    times: list[float] = []
    with _Peak(args.device) as peak:
        case.clear()
        step(case)
    while len(times) < args.repeat or (sum(times) < args.seconds and len(times) < 50):
        case.clear()
        if args.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        step(case)
        if args.device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    quantiles = torch.quantile(
        torch.tensor(times, dtype=torch.float64), torch.tensor([0.2, 0.5, 0.8]).double()
    ).tolist()
    return {
        **{k: getattr(args, k) for k in ("device", "flow", "dtype", "n", "vocab", "width", "threads")},
        "implementation": args.only,
        "ms": round(quantiles[1] * 1e3, 2),
        "ms_p20_p80": [round(quantiles[0] * 1e3, 2), round(quantiles[2] * 1e3, 2)],
        "first_ms": round(first * 1e3, 1),
        "repeats": len(times),
        "peak_mib": round(peak.bytes / 2**20, 1),
        "loss": float(loss.detach()),
    }


def _cases(args: argparse.Namespace) -> Iterator[list[str]]:
    for flow in args.flows:
        for dtype in args.dtypes:
            for vocab in args.vocabs:
                for n in args.tokens:
                    for name in IMPLEMENTATIONS[flow]:
                        yield [
                            *("--device", args.device, "--flow", flow, "--dtype", dtype, "--vocab", str(vocab)),
                            *("--n", str(n), "--width", str(args.width), "--threads", str(args.threads)),
                            *("--repeat", str(args.repeat), "--seconds", str(args.seconds), "--only", name),
                        ]


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--device", choices=("cpu", "cuda"), required=True)
    p.add_argument("--output", type=Path, help="JSON lines, one a case; appended to, cases already there are skipped")
    p.add_argument("--flows", nargs="+", choices=sorted(IMPLEMENTATIONS), default=["logits", "linear"])
    p.add_argument("--dtypes", nargs="+", choices=sorted(DTYPES), default=["bf16", "fp32"])
    p.add_argument("--vocabs", nargs="+", type=int, default=[32000, 49152, 128256])
    p.add_argument("--tokens", nargs="+", type=int, default=[512, 1024, 2048, 4096])
    p.add_argument("--width", type=int, default=576, help="hidden size of the linear flow")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeat", type=int, default=5, help="repetitions at least")
    p.add_argument("--seconds", type=float, default=1.0, help="repeat until this much time was measured")
    p.add_argument("--only", help=argparse.SUPPRESS)
    p.add_argument("--flow", help=argparse.SUPPRESS)
    p.add_argument("--dtype", help=argparse.SUPPRESS)
    p.add_argument("--vocab", type=int, help=argparse.SUPPRESS)
    p.add_argument("--n", type=int, help=argparse.SUPPRESS)
    return p


def main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SdrrlError("--device cuda: torch sees no CUDA device; use --device cpu or a machine with a GPU")
    if args.only:
        print(json.dumps(measure(args)))
        return 0
    done: set[tuple[object, ...]] = set()
    keys = ("flow", "dtype", "vocab", "n", "implementation")
    if args.output and args.output.exists():
        done = {tuple(json.loads(line)[k] for k in keys) for line in args.output.read_text().splitlines()}
    for case in _cases(args):
        if (case[3], case[5], int(case[7]), int(case[9]), case[-1]) in done:
            continue
        out = subprocess.run([sys.executable, __file__, *case], capture_output=True, text=True, check=False)
        if out.returncode:
            why = (out.stderr.strip().splitlines() or ["no message"])[-1]
            line = json.dumps(
                {
                    "flow": case[3],
                    "dtype": case[5],
                    "vocab": int(case[7]),
                    "n": int(case[9]),
                    "implementation": case[-1],
                    "error": why,
                }
            )
        else:
            line = out.stdout.strip().splitlines()[-1]
        print(line, flush=True)
        if args.output:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            with args.output.open("a", encoding="utf-8") as f:
                f.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
