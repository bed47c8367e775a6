"""LoRA (Hu et al., arXiv 2106.09685): frozen weights W, trained low-rank updates W + alpha / rank * B A.

NeMo's adapter modules, this project's wiring. NeMo's own ``LoRA`` transform asks Transformer Engine for its classes and
so fails where it is absent, and its callback takes the frozen weights from a NeMo checkpoint; here every start of a run
reads them from the Hugging Face folder, so adapters are put in right after that and checkpoints hold adapters alone.

Shapes of the adapter of a layer with in features and out features: A ``linear_in.weight`` [rank, in], B
``linear_out.weight`` [out, rank]. Under tensor parallelism NeMo splits A along the rank where the layer splits its
rows, along its input where the layer splits its input, and B always along its rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from nemo.collections.llm.peft.lora import LoRALinear
from nemo.collections.llm.peft.utils import ParallelLinearAdapter, get_adapter_attributes_from_linear
from torch import Tensor

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key, sha256_file
from sdrrl_nemo.common.seeding import derive_seed
from sdrrl_nemo.compat.megatron import replace_sharded_state_dict
from sdrrl_nemo.model.hf_bridge import HFTensors, shard
from sdrrl_nemo.model.provider import SdrrlGPTConfig
from sdrrl_nemo.model.standalone import unstacked

PARENTS = {
    "linear_qkv": "self_attention",
    "linear_proj": "self_attention",
    "linear_fc1": "mlp",
    "linear_fc2": "mlp",
}
"""Megatron's linear layers of a decoder layer, and the module that holds each."""
ADAPTER = ".adapter."
"""In the name of every trained parameter, and of no other."""


@dataclass(frozen=True)
class Lora:
    """What the adapters of a run are; kept in its identity and in every checkpoint."""

    rank: int
    alpha: float
    dropout: float
    target_modules: tuple[str, ...]
    pad_heads_to: int
    base: str
    """Key of the frozen weights' bytes (``base_key``): a checkpoint does not hold them."""

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Lora:
        """From its dictionary form, as JSON and checkpoints give it."""
        return cls(**{**facts, "target_modules": tuple(facts["target_modules"])})

    def facts(self) -> dict[str, Any]:
        """Dictionary form."""
        return {**asdict(self), "target_modules": list(self.target_modules)}


def base_key(folder: str | Path) -> str:
    """Names and SHA-256 of a Hugging Face folder's weight files, as one key."""
    hf = HFTensors(folder)
    return content_key([[name, sha256_file(hf.folder / name)] for name in sorted(set(hf.file_of.values()))])


def check_base(lora: Lora, folder: str | Path, where: str | Path) -> None:
    """SdrrlError when ``folder`` does not hold the weights the adapters of ``where`` were trained on."""
    if base_key(folder) != lora.base:
        raise SdrrlError(f"{where}: its LoRA adapters were trained on other weights than those in {folder}; name those")


def add_adapters(model: Any, lora: Lora, c: SdrrlGPTConfig, seed: int, tp_rank: int, tp_size: int) -> None:
    """Freeze this rank's mcore GPTModel, whose weights are loaded, and give its target modules adapters.

    B starts at zero, so the model computes what it did. A is drawn by the layer's name (Xavier normal over the whole
    matrix), the same in every layout. The model's distributed state is the adapters' from then on.
    """
    for p in model.parameters():
        p.requires_grad_(False)
    for name, parent, target in _targets(model, lora):
        layer = getattr(parent, target)
        is_row, n_in, n_out, no_sp_comm, parallel = _attributes(layer)
        adapter = ParallelLinearAdapter(
            n_in,
            n_out,
            lora.rank,
            base_linear_name=name,
            activation="identity",
            input_is_parallel=is_row,
            dropout=lora.dropout,
            dropout_position="pre",
            model_parallel_config=layer.config,
            alpha=lora.alpha,
            disable_sequence_parallel_comm=no_sp_comm,
            base_linear_is_parallel=parallel,
        )
        weight = adapter.linear_in.weight
        with torch.no_grad():
            full = _initial(name, lora.rank, n_in, _true_width(target, n_in, c), seed)
            weight.copy_(shard(full, name, weight.shape, tp_rank, tp_size))
        setattr(parent, target, LoRALinear(layer, adapter))
    _state_of_adapters_only(model)


def _attributes(layer: Any) -> tuple[bool, int, int, bool, bool]:
    """(input is split, in features, out features, no gathering of the sequence, layer is parallel), as NeMo has them.

    NeMo's function compares with Transformer Engine's classes first and fails where there are none.
    """
    if isinstance(layer, (ColumnParallelLinear, RowParallelLinear)):
        is_row = isinstance(layer, RowParallelLinear)
        return is_row, layer.input_size, layer.output_size, not layer.config.sequence_parallel, True
    found: tuple[bool, int, int, bool, bool] = get_adapter_attributes_from_linear(layer)
    return found


def _targets(model: Any, lora: Lora) -> Iterator[tuple[str, Any, str]]:
    """(name with the global layer number, module that holds the layer, its attribute) of this rank's targets."""
    for layer in model.decoder.layers:
        for target in lora.target_modules:
            parent = PARENTS[target]
            yield f"decoder.layers.{layer.layer_number - 1}.{parent}.{target}", getattr(layer, parent), target


def _true_width(target: str, n_in: int, c: SdrrlGPTConfig) -> int:
    """Input features of a layer without the zero heads."""
    return c.true_num_attention_heads * c.kv_channels if target == "linear_proj" else n_in


def _initial(name: str, rank: int, n_in: int, true_in: int, seed: int) -> Tensor:
    """Whole A [rank, in].

    Zero where it would read a zero head: its gradient is the head's output, zero, so it stays zero, and B of
    linear_qkv gets no gradient there either; the heads can be cut off at export.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "lora", name))
    drawn = torch.randn(rank, true_in, generator=generator) * math.sqrt(2.0 / (true_in + rank))
    return torch.cat([drawn, torch.zeros(rank, n_in - true_in)], dim=1)


def _state_of_adapters_only(model: Any) -> None:
    """Checkpoints of ``model`` hold its adapters; loading one leaves the frozen weights as they are."""
    whole = model.sharded_state_dict

    def adapters(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return {k: v for k, v in whole(*args, **kwargs).items() if ADAPTER in k}

    def frozen_are_not_missing(module: Any, incompatible: Any) -> None:
        incompatible.missing_keys[:] = [k for k in incompatible.missing_keys if ADAPTER in k]

    replace_sharded_state_dict(model, adapters)
    model.register_load_state_dict_post_hook(frozen_are_not_missing)


def update(adapters: dict[str, Tensor], name: str, lora: Lora) -> Tensor | None:
    """alpha / rank * B A, fp32 [out, in], for the Megatron weight ``name``; None: it is no target.

    Args:
        adapters: whole tensors of a checkpoint by name, layers stacked (standalone.checkpoint_tensors).
    """
    module, _, last = name.rpartition(".")
    if last != "weight" or module.rpartition(".")[2] not in lora.target_modules:
        return None
    a, b = (unstacked(adapters, f"{module}{ADAPTER}{part}.weight").float() for part in ("linear_in", "linear_out"))
    return lora.alpha / lora.rank * (b @ a)


def load_adapters(model: Any, adapters: dict[str, Tensor]) -> None:
    """Copy whole adapters into a TP=1, PP=1 model that ``add_adapters`` has been called on."""
    with torch.no_grad():
        for name, param in model.named_parameters():
            if ADAPTER in name:
                param.copy_(unstacked(adapters, name))
