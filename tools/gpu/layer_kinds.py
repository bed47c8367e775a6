"""The kinds of layers that training can be made of, and how a process takes one although a better one is installed.

The project takes the best that is installed (model/layer_spec.py, model/attention.py). Another kind is had by making
the better ones look as if they were not installed, in this process alone and before anything imports them.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.compat.versions import SUPPORTED, installed_version, within


@dataclass(frozen=True)
class Kind:
    """``module``: what it needs; ``package``: the distribution that brings it (empty: torch or nothing)."""

    name: str
    words: str
    module: str
    package: str
    fp32: bool
    """Whether its kernels for packed rows take fp32."""


KINDS = (
    Kind("te", "Transformer Engine's layers", "transformer_engine", "transformer-engine", False),
    Kind("flash", "local layers, flash-attn", "flash_attn", "flash-attn", False),
    Kind("varlen", "local layers, torch's varlen attention", "torch.nn.attention.varlen", "", False),
    Kind("local", "local layers, torch's attention sample by sample", "", "", True),
)
"""In the order in which the project prefers them."""


def kind(name: str) -> Kind:
    """By name; SdrrlError lists the known ones."""
    for k in KINDS:
        if k.name == name:
            return k
    raise SdrrlError(f"layers '{name}' are unknown{suggest(name, [k.name for k in KINDS])}")


def why_not(k: Kind) -> str:
    """Why training cannot take these layers here, as the end of a sentence; empty where it can."""
    if not k.module:
        return ""
    import torch

    if not torch.cuda.is_available():
        return "they need a GPU, and torch sees none"
    if not _installed(k.module):
        return f"{k.package or k.module} is not installed"
    if k.package:
        version, served = installed_version(k.package), SUPPORTED[k.package].versions
        if version is not None and not within(version, served):
            return f"{k.package} {version} is installed, served are {served}"
    return ""


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is absent
        return False


def take(k: Kind) -> None:
    """Hide what the project would prefer to ``k``; call before anything of Megatron or NeMo is imported."""
    for better in KINDS[: KINDS.index(k)]:
        if sys.modules.get(better.module) is not None:
            raise SdrrlError(f"{better.module} was imported before it could be hidden; layers '{k.name}' not taken")
        # Python then says that there is no such module, to imports and to find_spec alike.
        sys.modules[better.module] = None  # type: ignore[assignment]


def taken() -> str:
    """Name of the kind that the project takes in this process for packed rows in bf16; imports Megatron."""
    from sdrrl_nemo.model.attention import PackedRows, chosen_attention
    from sdrrl_nemo.model.layer_spec import has_transformer_engine

    if has_transformer_engine():
        return "te"
    name = chosen_attention("auto", PackedRows("bf16", 64, 1)).name
    return "local" if name == "sdpa" else name
