"""The files of an exported folder: weights in the types asked for, config.json for both versions of transformers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from sdrrl_nemo.common.fileio import read_json_object, write_json
from sdrrl_nemo.compat.transformers5 import for_both_versions
from sdrrl_nemo.model.published.generation import FILE as GENERATION
from sdrrl_nemo.model.published.weight_files import INDEX, StoredTensor

CARRIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""Copied as they are."""
SHARD = "5GB"
BASE = "base"
"""Each tensor in the type that it has in the base model's folder."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPES |= {"fp32": torch.float32, "bf16": torch.bfloat16}
STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def rounded(state: Mapping[str, Tensor], stored: Mapping[str, StoredTensor], dtype: str) -> dict[str, Tensor]:
    """The fp32 tensors in the type ``dtype``; for ``base`` each in its own of the base folder, ``stored``."""
    types = {name: DTYPES[dtype] if dtype != BASE else STORED[stored[name].dtype] for name in state}
    return {name: tensor.to(types[name]).contiguous() for name, tensor in state.items()}


def names_of(state: Mapping[str, Tensor]) -> list[str]:
    """The types of some tensors, the one of most numbers first."""
    sizes: dict[str, int] = {}
    for tensor in state.values():
        name = str(tensor.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + tensor.numel()
    return sorted(sizes, key=lambda name: -sizes[name])


def write_weights(folder: Path, state: dict[str, Tensor]) -> None:
    """``state`` as safetensors, in one file or, with an index, in several of at most 5 GB."""
    split = split_torch_state_dict_into_shards(
        state, filename_pattern="model{suffix}.safetensors", max_shard_size=SHARD
    )
    for file, names in split.filename_to_tensors.items():
        save_file({name: state[name] for name in names}, folder / file, {"format": "pt"})
    if split.is_sharded:
        write_json(folder / INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})


def write_config(base: Path, folder: Path, architecture: str, dtype: str, generation: dict[str, Any]) -> None:
    """config.json of ``base`` with the type of the weights, and what is beside it; both versions read it alike."""
    document = {"architectures": [architecture], **read_json_object(base / "config.json")}
    document |= {"torch_dtype": dtype, "dtype": dtype}
    write_json(folder / "config.json", document)
    for name in CARRIED:
        if (base / name).is_file():
            shutil.copy(base / name, folder / name)
    if generation:
        write_json(folder / GENERATION, generation)
    for_both_versions(folder)
