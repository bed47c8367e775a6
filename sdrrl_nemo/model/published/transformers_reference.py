"""transformers' own idea of a folder: its configuration read without our help, and its rotary frequencies.

Whatever is compared with our numbers comes from here. A check that took the configuration as this project read it
would share the reading's faults.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json_object
from sdrrl_nemo.compat.transformers5 import read_config, reads_by_itself, rope_scaling, rope_theta

CLOSE = 1e-5
"""Largest relative difference of a frequency: rounding, no other formula."""


@dataclass(frozen=True)
class Reference:
    """The folder's configuration for transformers' own model.

    ``note``: empty where transformers read the file itself, else why it was given a translation.
    """

    config: PretrainedConfig
    note: str = ""


def reference(folder: Path) -> Reference:
    """As the installed transformers reads the folder; translated, and said so, where it knows not all of its words."""
    version = metadata.version("transformers")
    if not reads_by_itself(read_json_object(folder / "config.json")):
        why = f"transformers {version} does not understand rope_parameters of config.json, so it got a translation"
        return Reference(read_config(folder), why)
    try:
        config = AutoConfig.from_pretrained(folder)
        rotary_module(config)
    except Exception as e:  # whatever a null or a number of another type leads to inside transformers
        why = str(e).strip().partition("\n")[0] or type(e).__name__
        note = f"transformers {version} cannot read config.json as it is ({why}), so it was given a translation"
        return Reference(read_config(folder), note)
    return Reference(config)


def reference_logits(folder: Path, token_ids: Tensor) -> Tensor:
    """Logits fp32 [b, s, V] of transformers' own model of a folder, loaded by transformers from it."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(folder), config=reference(folder).config, dtype=torch.float32, local_files_only=True
    )
    with torch.no_grad():
        found: Tensor = model.eval()(token_ids).logits.float()
    return found


def rotary_module(config: PretrainedConfig) -> Any:
    """The rotary embedding that transformers' model of this configuration has: ``inv_freq``, ``attention_scaling``."""
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    name = model.__name__.removesuffix("ForCausalLM") + "RotaryEmbedding"
    return getattr(inspect.getmodule(model), name)(config=config)


def head_size(hf: PretrainedConfig) -> int:
    """Size of one attention head; not every config states it."""
    return int(getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads)


def frequencies(hf: PretrainedConfig) -> tuple[Tensor, float]:
    """(inverse frequencies fp32 [head size / 2], factor on cosines and sines) that Megatron is given."""
    kind = rope_scaling(hf).get("rope_type", "default")
    if kind == "default":
        d = head_size(hf)
        return 1.0 / (rope_theta(hf) ** (torch.arange(0, d, 2, dtype=torch.float32) / d)), 1.0
    found, factor = ROPE_INIT_FUNCTIONS[kind](hf, "cpu")
    return found, float(factor)


def check_rotary(folder: Path, hf: PretrainedConfig) -> None:
    """SdrrlError where our rotary frequencies are not those of transformers' model built from the folder."""
    module = rotary_module(reference(folder).config)
    ours, factor = frequencies(hf)
    theirs = module.inv_freq.float()
    same = theirs.shape == ours.shape and bool(((ours - theirs).abs() <= CLOSE * theirs.abs()).all())
    if not same or abs(factor - float(module.attention_scaling)) > CLOSE:
        raise SdrrlError(
            f"{folder}/config.json: the rotary positions read here are not those of transformers "
            f"{metadata.version('transformers')}; state base and scaling as rope_theta and rope_scaling"
        )
