"""transformers 4.57 and 5 alike: rotary settings, tokenizers, and folders that both can read.

Version 5 keeps the base and the scaling of the rotary positions together as ``rope_parameters``, where 4.57 has
``rope_theta`` and ``rope_scaling``. A config.json written by 5 alone is read by 4.57 without an error and with a base
of 10,000, so folders written here carry both, and one without is read here as it was meant.

Version 5 builds the tokenizers of some families anew from vocabulary and merges; here tokenizer.json decides.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrrl_nemo.common.fileio import read_json, write_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

V5_CLASS, V4_CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"
"""What each calls a tokenizer that is its tokenizer.json."""


def is_version_5() -> bool:
    """Whether transformers 5 or later is installed."""
    return int(metadata.version("transformers").partition(".")[0]) >= 5


def rope_theta(config: PretrainedConfig) -> float:
    """Base of the rotary frequencies."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if "rope_theta" in parameters:
        return float(parameters["rope_theta"])
    return float(config.rope_theta)


def rope_scaling(config: PretrainedConfig) -> dict[str, Any]:
    """Type of the rotary scaling (``rope_type``) and its settings; empty: plain rotary positions."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    scaling = {k: v for k, v in found.items() if k != "rope_theta"}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    return {} if kind == "default" else {**scaling, "rope_type": kind}


def partial_rotary_factor(config: PretrainedConfig) -> float | None:
    """Share of each head's dimensions that is rotated; None: not stated, all are."""
    parameters = getattr(config, "rope_parameters", None) or {}
    found = parameters.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None))
    return None if found is None else float(found)


def read_config(path: str | Path) -> PretrainedConfig:
    """The configuration of a folder or a config.json; 4.57 too understands one that 5 wrote."""
    from transformers import AutoConfig

    config: PretrainedConfig = AutoConfig.from_pretrained(path)
    if not is_version_5() and _is_flat(parameters := getattr(config, "rope_parameters", None)):
        config.rope_theta = rope_theta(config)
        config.rope_scaling = rope_scaling(config) or None
        config.rope_parameters = parameters
    return config


def _is_flat(parameters: Any) -> bool:
    """Not one set of rotary settings for each type of layer; models with several are refused (model/families.py)."""
    return isinstance(parameters, dict) and "rope_theta" in parameters


def load_tokenizer(folder: str | Path, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder as its tokenizer.json says, whichever version wrote it; nothing is downloaded."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    path = Path(folder)
    options["local_files_only"] = True
    kind: Any = AutoTokenizer
    if (path / "tokenizer.json").is_file():
        written = read_json(path / "tokenizer_config.json") if (path / "tokenizer_config.json").is_file() else {}
        if is_version_5() or written.get("tokenizer_class") == V5_CLASS:
            kind = PreTrainedTokenizerFast
        extra = written.get("extra_special_tokens")
        if not is_version_5() and isinstance(extra, list):  # 4.57 has them under another name
            options |= {"extra_special_tokens": {}, "additional_special_tokens": extra}
    tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(str(path), **options)
    # Text as it was generated: some folders (Llama 3's) ask for the spaces before ? and ! to be taken away.
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def for_both_versions(folder: Path) -> None:
    """Rewrite config.json and tokenizer_config.json of a folder just made, so that 4.57 and 5 read the same model."""
    path = folder / "config.json"
    write_json(path, with_both_ropes(read_json(path)))
    path = folder / "tokenizer_config.json"
    if path.is_file() and (settings := read_json(path)).get("tokenizer_class") == V5_CLASS:
        write_json(path, {**settings, "tokenizer_class": V4_CLASS})


def with_both_ropes(config: dict[str, Any]) -> dict[str, Any]:
    """The content of a config.json with the rotary settings as 4.57 and as 5 name them."""
    parameters: Any = config.get("rope_parameters")
    if parameters is None and "rope_theta" in config:
        scaling = config.get("rope_scaling") or {}
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        parameters = {**scaling, "rope_theta": config["rope_theta"], "rope_type": kind}
    if not _is_flat(parameters):
        return config
    scaling = {k: v for k, v in parameters.items() if k != "rope_theta"}
    plain = scaling.get("rope_type", "default") == "default"
    return {
        **config,
        "rope_parameters": parameters,
        "rope_theta": parameters["rope_theta"],
        "rope_scaling": None if plain else scaling,
    }
