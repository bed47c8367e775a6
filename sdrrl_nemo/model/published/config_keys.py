"""Which keys of a config.json are read, which are known to change nothing, and that there are no others.

A key that would change what the model computes and that Megatron is not told about is an error, never ignored. So is a
key nobody here has heard of: only null and false, which switch a thing off, pass without a name in these lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json_object
from sdrrl_nemo.compat.dialects.rope_dialects import Rope, is_nested, is_number, rope_of
from sdrrl_nemo.compat.transformers5 import config_file

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
)
"""Keys without which there is no model; ``num_key_value_heads`` and ``max_position_embeddings`` have defaults."""
READ = (
    *SIZES,
    "architectures",
    "attention_dropout",
    "auto_map",
    "dtype",
    "head_dim",
    "hidden_act",
    "initializer_range",
    "layer_types",
    "max_position_embeddings",
    "model_type",
    "num_key_value_heads",
    "partial_rotary_factor",
    "pruned_heads",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "torch_dtype",
)
"""Keys of every family that have a meaning here."""
READ_BY = {
    "llama": ("attention_bias", "mlp_bias"),
    "mistral": ("sliding_window",),
    "qwen2": ("sliding_window", "use_sliding_window"),
    "qwen3": ("attention_bias", "sliding_window", "use_sliding_window"),
}
"""By ``model_type``: those a family's own classes in transformers read beside them."""
HARMLESS_BY = {
    "qwen2": ("attention_bias", "max_window_layers"),  # its biases are fixed; layers that slide see whole samples here
    "qwen3": ("max_window_layers",),
}
HARMLESS = frozenset(
    (
        # names, versions, notes
        *("_commit_hash", "_name_or_path", "_model_name_or_path", "finetuning_task", "is_llama_config", "language"),
        *("license", "model_name", "tokenizer_class", "transformers.js_config", "transformers_version"),
        *("unsloth_fixed", "unsloth_version", "neuron", "base_model"),
        # tokens, and how text is generated
        *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids"),
        *("do_sample", "early_stopping", "max_length", "max_new_tokens", "min_length", "num_beams", "temperature"),
        *("diversity_penalty", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "length_penalty"),
        *("no_repeat_ngram_size", "num_beam_groups", "num_return_sequences", "output_scores", "remove_invalid_values"),
        *(
            "repetition_penalty",
            "return_dict_in_generate",
            "top_k",
            "top_p",
            "typical_p",
            "prefix",
            "generation_config",
        ),
        # how it is computed, not what
        *(
            "_attn_implementation",
            "_attn_implementation_autoset",
            "_attn_implementation_internal",
            "attn_implementation",
        ),
        *(
            "_flash_attn_2_enabled",
            "use_flash_attention",
            "use_flash_attention_2",
            "use_flash_attn",
            "gradient_checkpointing",
        ),
        *("cache_implementation", "logits_to_keep", "num_logits_to_keep", "output_attentions", "output_hidden_states"),
        *("pretraining_tp", "return_dict", "torchscript", "use_bfloat16", "use_cache", "use_return_dict", "is_decoder"),
        # heads for other tasks, which a language model does not have
        *("classifier_dropout", "id2label", "label2id", "num_labels", "problem_type", "task_specific_params"),
        *("max_sequence_length", "model_max_length", "seq_length"),  # notes beside max_position_embeddings
    )
)
"""Keys that change nothing the model computes."""
SAME_AS = {"num_layers": "num_hidden_layers", "n_layer": "num_hidden_layers", "n_embd": "hidden_size"}
SAME_AS |= {"n_head": "num_attention_heads", "num_heads": "num_attention_heads", "ffn_hidden_size": "intermediate_size"}
"""Other names of a size, which no class reads: harmless where both say the same."""
TOKEN_ID = ("_token_id", "_token_ids")
"""Ends of keys that name tokens."""
ONE_MEANING: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_dropout": (0.0, None),
    "partial_rotary_factor": (1.0, None),
    "quantization_config": (None,),
    "pruned_heads": ({}, None),
    **dict.fromkeys(("attn_pdrop", "embd_pdrop", "embedding_dropout", "hidden_dropout", "resid_pdrop"), (0.0, None)),
    "chunk_size_feed_forward": (0, None),
}
"""Keys of which one meaning is served: the values that have it."""
TRUTH = ("attention_bias", "mlp_bias", "tie_word_embeddings", "use_sliding_window")
ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"),
        *("mscale", "mscale_all_dim", "truncate"),
    ),
}
"""Rotary scalings whose frequencies are constants, with their keys; ``dynamic`` and ``longrope`` change with the
sequence's length."""
NEEDED = {"linear": ("factor",), "yarn": ("factor",), "llama3": ROPE_KEYS["llama3"]}
CLASSES = {k: f"{k}ForCausalLM".lower() for k in READ_BY}


def read_document(folder: str | Path) -> dict[str, Any]:
    """The content of a served family's config.json, every key of it understood; SdrrlError names file and key."""
    file = config_file(folder)
    document = read_json_object(file)
    check_keys(document, str(file))
    return document


def check_keys(document: Mapping[str, Any], where: str) -> None:
    """SdrrlError for a key whose value is not served, not of its kind, or not known; the family is a served one."""
    kind = document["model_type"]
    known = {*READ, *READ_BY[kind], *HARMLESS, *HARMLESS_BY.get(kind, ()), *ONE_MEANING}
    for key, value in document.items():
        if key in ONE_MEANING and value not in ONE_MEANING[key]:
            raise SdrrlError(f"{where}: {key} = {value!r} is not supported, only {ONE_MEANING[key][0]!r} is")
        if key in SAME_AS:
            if value is not None and value != document.get(SAME_AS[key]):
                raise SdrrlError(f"{where}: {key} = {value!r}, but {SAME_AS[key]} = {document.get(SAME_AS[key])!r}")
        elif key not in known and not key.endswith(TOKEN_ID) and value is not None and value is not False:
            raise SdrrlError(
                f"{where}: the key '{key}' = {_short(value)} is not known for a model of type '{kind}' and may change "
                "what it computes; remove it if it changes nothing"
            )
    for key in TRUTH:
        if document.get(key) not in (None, True, False):
            raise SdrrlError(f"{where}: {key} must be true or false, is {document[key]!r}")
    _check_numbers(document, where)
    _check_classes(document, where)
    _check_rope(document, where)
    _check_layers(document, where)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_numbers(document: Mapping[str, Any], where: str) -> None:
    for key in SIZES:
        if not _is_size(document.get(key)):
            raise SdrrlError(f"{where}: {key} must be a whole number above 0, is {document.get(key)!r}")
    if not _is_size(document.get("max_position_embeddings", 1)):
        raise SdrrlError(f"{where}: max_position_embeddings must be a whole number above 0")
    for key in ("num_key_value_heads", "head_dim", "sliding_window"):
        if document.get(key) is not None and not _is_size(document[key]):
            raise SdrrlError(f"{where}: {key} must be a whole number above 0 or null, is {document[key]!r}")
    heads, groups = document["num_attention_heads"], document.get("num_key_value_heads")
    if groups and heads % groups:
        raise SdrrlError(f"{where}: num_key_value_heads = {groups} does not divide the {heads} attention heads")
    if document["model_type"] == "qwen3" and "head_dim" in document and document["head_dim"] is None:
        raise SdrrlError(f"{where}: head_dim is null, which transformers cannot read for a Qwen3; write its number")
    if document.get("head_dim") is None and document["hidden_size"] % heads:
        raise SdrrlError(
            f"{where}: hidden_size {document['hidden_size']} is no multiple of its {heads} heads; state head_dim"
        )
    eps = document.get("rms_norm_eps", 1e-6)
    if not is_number(eps) or not 0 <= eps < 1:
        raise SdrrlError(f"{where}: rms_norm_eps must be a number from 0 to 1, is {eps!r}")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_classes(document: Mapping[str, Any], where: str) -> None:
    """The folder is of the plain language model: no other head on it, no code of its own."""
    kind, named = document["model_type"], document.get("architectures") or []
    if not isinstance(named, list) or (named and CLASSES[kind] not in {str(n).lower() for n in named}):
        raise SdrrlError(f"{where}: architectures = {named!r}, expected the language model of the family '{kind}'")
    code = document.get("auto_map") or {}
    own = (
        [k for k in code if k in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")]
        if isinstance(code, dict)
        else [code]
    )
    if own:
        raise SdrrlError(
            f"{where}: auto_map names code of the folder's own ({own[0]}), which is not run here; remove the key if "
            f"the plain '{kind}' of transformers is the same model"
        )


def _check_rope(document: Mapping[str, Any], where: str) -> None:
    if is_nested(document):
        raise SdrrlError(f"{where}: rope_parameters differ by type of layer, which is not served")
    rope = rope_of(document, where)
    if rope.partial not in (None, 1.0):
        raise SdrrlError(f"{where}: partial_rotary_factor = {rope.partial!r} is not supported, only 1.0 is")
    if rope.kind not in ROPE_KEYS:
        raise SdrrlError(f"{where}: rope_scaling of type '{rope.kind}' is not supported; known: {', '.join(ROPE_KEYS)}")
    for key in rope.settings:
        if key not in ROPE_KEYS[rope.kind]:
            raise SdrrlError(f"{where}: the key '{key}' of a rope_scaling of type '{rope.kind}' is not known")
    _check_scaling(rope, where)


def _check_scaling(rope: Rope, where: str) -> None:
    for key in NEEDED.get(rope.kind, ()):
        if key not in rope.settings:
            raise SdrrlError(f"{where}: rope_scaling of type '{rope.kind}' lacks the key '{key}'")
    for key, value in rope.settings.items():
        if key == "truncate":
            if not isinstance(value, bool):
                raise SdrrlError(f"{where}: truncate of rope_scaling must be true or false, is {value!r}")
        elif not is_number(value) or value <= 0:
            raise SdrrlError(f"{where}: {key} of rope_scaling must be a number above 0, is {value!r}")
    low, high = (rope.settings.get(k, d) for k, d in (("low_freq_factor", 0), ("high_freq_factor", 1)))
    if low >= high:
        raise SdrrlError(f"{where}: low_freq_factor of rope_scaling must be below high_freq_factor, is {low} of {high}")


def _check_layers(document: Mapping[str, Any], where: str) -> None:
    """``layer_types`` must agree with what else is said of windows: no family here reads it otherwise."""
    types = document.get("layer_types")
    if types is None:
        return
    layers = document["num_hidden_layers"]
    if not isinstance(types, list) or len(types) != layers:
        raise SdrrlError(f"{where}: layer_types must name {layers} layers, as num_hidden_layers says")
    kind, slides = document["model_type"], document.get("sliding_window") is not None
    windows = kind == "mistral" or document.get("use_sliding_window") is True
    for name in {str(t) for t in types}:
        if name == "full_attention" and not (kind == "mistral" and slides):
            continue
        if name != "sliding_attention" or not (slides and windows and kind in ("mistral", "qwen2", "qwen3")):
            raise SdrrlError(
                f"{where}: layer_types has '{name}', which does not go with sliding_window and use_sliding_window, or "
                f"is not known for a '{kind}'"
            )
