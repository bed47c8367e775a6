"""Kernels of other projects, where they are installed: each is imported when asked for, an absent one says so.

None of them is a dependency of this project. Most take no weight a token: they compute the plain sum of the token
losses, which costs them less than the weighted sum would.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from sdrrl_kernels.reference import IGNORE_INDEX
from tools.bench.kernels.loss_cases import Case, Step


class Peer(NamedTuple):
    """One implementation of one flow: its package's name on the index, and what makes a step of it."""

    package: str
    load: Callable[[], Step]


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _liger(module: str) -> Step:
    """Any of Liger-Kernel's cross-entropies over logits; it returns (loss, z-loss, accuracy, tokens)."""
    function = _module(module).LigerCrossEntropyFunction
    return lambda c: c.finish(function.apply(c.own_logits(), c.labels, None, IGNORE_INDEX, 0.0, 0.0, "sum")[0])


def _liger_linear(module: str) -> Step:
    function = _module(module).LigerFusedLinearCrossEntropyFunction
    return lambda c: c.finish(
        function.apply(c.hidden, c.weight, c.labels, None, None, IGNORE_INDEX, 0.0, 0.0, "sum")[0]
    )


def _liger_cute_linear() -> Step:
    """Hopper and Blackwell have functions of their own, with other arguments."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9:
        module = _module("liger_kernel.ops.cutedsl.ops.fused_linear_cross_entropy_sm90")
        hopper = module.LigerFusedLinearCrossEntropySM90Function

        def step(c: Case) -> torch.Tensor:
            out = hopper.apply(c.hidden, c.weight, c.labels, IGNORE_INDEX, "sum")
            return c.finish(out[0] if isinstance(out, tuple) else out)

        return step
    return _liger_linear("liger_kernel.ops.cutedsl.ops.fused_linear_cross_entropy")


def _quack() -> Step:
    function = _module("quack.cross_entropy").cross_entropy
    return lambda c: c.finish(function(c.own_logits(), c.labels, reduction="sum", inplace_backward=True))


def _quack_linear() -> Step:
    function = _module("quack.linear_cross_entropy").chunked_linear_cross_entropy
    return lambda c: c.finish(function(c.hidden, c.weight, c.labels, reduction="sum"))


def _cce() -> Step:
    function = _module("cut_cross_entropy").linear_cross_entropy
    return lambda c: c.finish(function(c.hidden, c.weight, c.labels, reduction="sum", impl="cce"))


def _transformer_engine() -> Step:
    function = _module("transformer_engine.pytorch.cross_entropy").parallel_cross_entropy
    # since 2.20 the logits' own memory can take the gradient, as it does here
    more = {"overwrite_input": True} if "overwrite_input" in inspect.signature(function).parameters else {}
    return lambda c: c.finish(function(c.own_logits()[None], c.labels[None], **more).sum())


def _mcore() -> Step:
    """megatron-core's fused form, which asks for a group: one rank, so its collectives cost next to nothing."""
    function = _module("megatron.core.fusions.fused_cross_entropy").fused_vocab_parallel_cross_entropy
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    group = dist.group.WORLD

    def step(c: Case) -> torch.Tensor:
        # it knows no ignored label: such rows get a label and no weight
        labels = c.labels.clamp(min=0)[:, None]
        return c.finish((function(c.own_logits()[:, None], labels, group)[:, 0] * c.weights).sum())

    return step


def _mcore_linear() -> Step:
    function = _module("megatron.core.fusions.fused_linear_cross_entropy").linear_cross_entropy
    return lambda c: c.finish(function(c.hidden, c.weight, c.labels, None, "sum", IGNORE_INDEX))


CUTE = "liger_kernel.ops.cutedsl.ops.cross_entropy"
PEERS: dict[str, dict[str, Peer]] = {
    "logits": {
        "Liger (Triton)": Peer("liger-kernel", lambda: _liger("liger_kernel.ops.cross_entropy")),
        "Liger (CuTe)": Peer("liger-kernel", lambda: _liger(CUTE)),
        "quack": Peer("quack-kernels", _quack),
        "TransformerEngine": Peer("transformer-engine", _transformer_engine),
        "mcore fused": Peer("megatron-core", _mcore),
    },
    "linear": {
        "Liger (Triton)": Peer("liger-kernel", lambda: _liger_linear("liger_kernel.ops.fused_linear_cross_entropy")),
        "Liger (CuTe)": Peer("liger-kernel", _liger_cute_linear),
        "quack": Peer("quack-kernels", _quack_linear),
        "cce": Peer("cut-cross-entropy", _cce),
        "mcore linear": Peer("megatron-core", _mcore_linear),
    },
}


def installed(flow: str) -> tuple[dict[str, Step], dict[str, str]]:
    """(steps by name, why each of the others cannot run here)."""
    steps: dict[str, Step] = {}
    absent: dict[str, str] = {}
    for name, peer in PEERS[flow].items():
        found = installed_version(peer.package)
        if found is None:
            absent[name] = f"{peer.package} is not installed"
            continue
        try:
            steps[name] = peer.load()
        except Exception as e:  # a package that is there but cannot be used here: the reason is a row of the report
            absent[name] = f"{peer.package} {found}: {type(e).__name__}: {e}"[:200]
    return steps, absent


def installed_version(package: str) -> str | None:
    """None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
