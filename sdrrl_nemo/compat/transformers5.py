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

from sdrrl_nemo.common.fileio import read_json, read_json_object, write_json
from sdrrl_nemo.compat.dialects.rope_dialects import rope_of, with_both_ropes

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
    scaling = {k: v for k, v in found.items() if k not in ("rope_theta", "partial_rotary_factor")}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    return {} if kind == "default" else {**scaling, "rope_type": kind}


def config_file(path: str | Path) -> Path:
    """The config.json of a folder, or the file itself."""
    return Path(path) if Path(path).is_file() else Path(path) / "config.json"


def read_config(path: str | Path) -> PretrainedConfig:
    """The configuration of a folder or a config.json, as it is meant, whichever version is installed or wrote it.

    SdrrlError for a file that is absent, no JSON object, or contradicts itself about the rotary positions; whatever
    transformers raises for a field that it cannot read.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    file = config_file(path)
    document = plain_values(with_both_ropes(read_json_object(file), str(file)))
    kind = document.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        unknown: PretrainedConfig = AutoConfig.from_pretrained(path)  # has a sentence for it
        return unknown
    config: PretrainedConfig = CONFIG_MAPPING[kind].from_dict(document)
    return config


def reads_by_itself(document: dict[str, Any]) -> bool:
    """Whether the installed version understands a config.json without help: 4.57 knows nothing of ``rope_parameters``,
    5 drops a base that stands in ``rope_parameters`` alone while there is a ``rope_scaling``.
    """
    parameters, scaling = document.get("rope_parameters"), document.get("rope_scaling") or {}
    if is_version_5():
        return not parameters or not scaling or "rope_theta" in {*document, *scaling}
    if "rope_theta" in scaling:
        return False
    return not parameters or (document.get("rope_theta") is not None and bool(scaling) == _is_scaled(document))


def _is_scaled(document: dict[str, Any]) -> bool:
    return rope_of(document).kind != "default"


NULL_MEANS: dict[str, Any] = {
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "attention_dropout": 0.0,
}
"""What 4.57 takes null for; 5 refuses a null where a number or a truth value belongs."""
HEAD_SIZE_IS_HIDDEN_OVER_HEADS = ("llama", "mistral", "qwen2")
"""Families whose head size is that where it is null or absent."""


def plain_values(document: dict[str, Any]) -> dict[str, Any]:
    """The content of a config.json without those nulls that one of the versions cannot read."""
    found = {k: NULL_MEANS.get(k, v) if v is None else v for k, v in document.items()}
    sizes = found.get("hidden_size"), found.get("num_attention_heads")
    whole = all(isinstance(n, int) and n > 0 for n in sizes)
    if document.get("model_type") in HEAD_SIZE_IS_HIDDEN_OVER_HEADS and found.get("head_dim", 0) is None and whole:
        found["head_dim"] = sizes[0] // sizes[1]  # type: ignore[operator]  # both are numbers: whole
    return found


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


def attention_of(config: Any) -> str | None:
    """Name of the attention that a loaded model takes; transformers has a public way to set it alone."""
    name: str | None = getattr(config, "_attn_implementation", None)
    return name


def token_count(tokenizer: PreTrainedTokenizerBase) -> int:
    """Ids from 0 to the highest that the tokenizer gives: those of added tokens can leave gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def for_both_versions(folder: Path) -> None:
    """Rewrite config.json and tokenizer_config.json of a folder just made, so that 4.57 and 5 read the same model."""
    path = folder / "config.json"
    write_json(path, plain_values(with_both_ropes(read_json(path), str(path))))
    path = folder / "tokenizer_config.json"
    if path.is_file() and (settings := read_json(path)).get("tokenizer_class") == V5_CLASS:
        write_json(path, {**settings, "tokenizer_class": V4_CLASS})
