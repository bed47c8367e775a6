"""config.json files as models are published, and what each means in transformers' own words.

``means`` are keyword arguments of the configuration class, in the names of transformers 4, and written out: whoever
adds a case says what it means and does not ask this project. A case with ``refused`` must be an error of these words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 2.0}
DEFAULT = {"rope_type": "default"}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 101,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "rms_norm_eps": 1e-5,
}


@dataclass(frozen=True)
class Case:
    """``keys``: of config.json beside the sizes; a key whose value is ``GONE`` is left out of the sizes."""

    name: str
    family: str
    keys: dict[str, Any]
    means: dict[str, Any] = field(default_factory=dict)
    refused: str = ""


GONE = "left out"


def ok(name: str, family: str, keys: dict[str, Any], **means: Any) -> Case:
    return Case(name, family, keys, means)


def refused(name: str, family: str, keys: dict[str, Any], words: str) -> Case:
    return Case(name, family, keys, refused=words)


SERVED = (
    # the base of the rotary positions, in both dialects
    ok("base of 4", "llama", {"rope_theta": 5e5}, rope_theta=5e5),
    ok("base of 5", "llama", {"rope_parameters": {"rope_theta": 5e5, **DEFAULT}}, rope_theta=5e5),
    ok("base of 5 without a type", "llama", {"rope_parameters": {"rope_theta": 5e5}}, rope_theta=5e5),
    ok("base of 5, the rest null", "qwen2", {"rope_parameters": {"rope_theta": 1e6, **DEFAULT}, "rope_scaling": None,
       "rope_theta": None}, rope_theta=1e6),
    ok("both dialects agree", "llama", {"rope_theta": 5e5, "rope_scaling": None,
       "rope_parameters": {"rope_theta": 5e5, **DEFAULT}}, rope_theta=5e5),
    ok("no base", "llama", {}, rope_theta=1e4),
    ok("a whole number", "mistral", {"rope_theta": 1000000, "sliding_window": None}, rope_theta=1e6,
       sliding_window=None),
    # scalings
    ok("llama3 of 4", "llama", {"rope_theta": 5e5, "rope_scaling": LLAMA3}, rope_theta=5e5, rope_scaling=LLAMA3),
    ok("llama3 of 5", "llama", {"rope_parameters": {"rope_theta": 5e5, **LLAMA3}}, rope_theta=5e5,
       rope_scaling=LLAMA3),
    ok("llama3 in both", "llama", {"rope_theta": 5e5, "rope_scaling": LLAMA3,
       "rope_parameters": {"rope_theta": 5e5, **LLAMA3}}, rope_theta=5e5, rope_scaling=LLAMA3),
    ok("scaling without base in both", "llama", {"rope_scaling": LINEAR,
       "rope_parameters": {"rope_theta": 5e5, **LINEAR}}, rope_theta=5e5, rope_scaling=LINEAR),
    ok("base inside rope_scaling", "llama", {"rope_scaling": {"rope_theta": 5e5, **LINEAR}}, rope_theta=5e5,
       rope_scaling=LINEAR),
    ok("base beside rope_parameters", "llama", {"rope_theta": 7e4, "rope_parameters": LINEAR}, rope_theta=7e4,
       rope_scaling=LINEAR),
    ok("an old word for the type", "llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, rope_theta=1e4,
       rope_scaling=LINEAR),
    ok("both words for the type", "qwen2", {"rope_scaling": {"type": "yarn", **YARN}}, rope_theta=1e4,
       rope_scaling=YARN),
    ok("yarn of 4", "qwen2", {"rope_theta": 1e6, "rope_scaling": YARN}, rope_theta=1e6, rope_scaling=YARN),
    ok("yarn of 5", "qwen3", {"rope_parameters": {"rope_theta": 1e6, **YARN, "attention_factor": 1.25}},
       rope_theta=1e6, rope_scaling={**YARN, "attention_factor": 1.25}),
    ok("yarn without truncation", "qwen2", {"rope_theta": 1e6, "rope_scaling": {**YARN, "truncate": False,
       "beta_fast": 16.0, "beta_slow": 2.0}}, rope_theta=1e6,
       rope_scaling={**YARN, "truncate": False, "beta_fast": 16.0, "beta_slow": 2.0}),
    ok("linear scaling of a Mistral", "mistral", {"rope_parameters": {"rope_theta": 1e5, **LINEAR}}, rope_theta=1e5,
       rope_scaling=LINEAR),
    # heads
    ok("a head size of its own", "llama", {"head_dim": 12}, head_dim=12),
    ok("a head size of null", "llama", {"head_dim": None}, head_dim=8),
    ok("a head size of null, scaled", "mistral", {"head_dim": None, "rope_scaling": LINEAR}, head_dim=8,
       rope_scaling=LINEAR),
    ok("a head size of a Qwen2", "qwen2", {"head_dim": 12}, head_dim=12),
    ok("key/value heads of null", "llama", {"num_key_value_heads": None}, num_key_value_heads=4),
    ok("no key/value heads", "llama", {"num_key_value_heads": GONE}, num_key_value_heads=4),
    # biases
    ok("biases on attention", "llama", {"attention_bias": True}, attention_bias=True),
    ok("biases on the feed-forward layer", "llama", {"mlp_bias": True}, mlp_bias=True),
    ok("biases on both", "llama", {"attention_bias": True, "mlp_bias": True}, attention_bias=True, mlp_bias=True),
    ok("biases of null", "llama", {"attention_bias": None, "mlp_bias": None, "attention_dropout": None}),
    ok("biases of a Qwen3", "qwen3", {"attention_bias": True, "head_dim": 8}, attention_bias=True, head_dim=8),
    ok("what a Qwen2 does not read", "qwen2", {"attention_bias": False, "max_window_layers": 1}),
    # windows, tying, notes
    ok("windows that are off", "qwen2", {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 1}),
    ok("windows in some layers", "qwen2", {"use_sliding_window": True, "sliding_window": 48, "max_window_layers": 1},
       use_sliding_window=True, sliding_window=48, max_window_layers=1),
    ok("types of layers", "qwen3", {"layer_types": ["full_attention"] * 2, "head_dim": 8}, head_dim=8),
    ok("a window in every layer", "mistral", {"sliding_window": 64}, sliding_window=64),
    ok("tied", "llama", {"tie_word_embeddings": True}, tie_word_embeddings=True),
    ok("notes", "llama", {"_name_or_path": "x", "torch_dtype": "bfloat16", "pretraining_tp": 2, "use_cache": False,
       "transformers_version": "4.31.0", "unsloth_version": "2024.9", "eos_token_id": [2, 3], "num_labels": 2}),
    ok("a type of both names", "llama", {"torch_dtype": "float16", "dtype": "bfloat16", "hidden_act": "silu"}),
    ok("things switched off", "llama", {"logit_scale": None, "parallel_residual": False, "resid_pdrop": 0.0,
       "final_logit_softcapping": None}),
)  # fmt: skip

_OF_LLAMA = {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
             "bos_token_id": 1, "mlp_bias": False, "pretraining_tp": 1, "rope_scaling": None, "use_cache": True,
             "tie_word_embeddings": False, "torch_dtype": "bfloat16", "initializer_range": 0.2}  # fmt: skip
PUBLISHED = (
    ok("EuroLLM-1.7B-Instruct", "llama", {**_OF_LLAMA, "_name_or_path": "utter-project/EuroLLM-1.7B-Instruct",
       "eos_token_id": 4, "rope_theta": 10000.0, "transformers_version": "4.43.3"}, rope_theta=1e4),
    ok("salamandra-2b-instruct", "llama", {**_OF_LLAMA, "_name_or_path": "BSC-LT/salamandra-2b-instruct",
       "eos_token_id": 2, "num_key_value_heads": 4, "num_layers": 2, "rope_theta": 10000.0,
       "transformers_version": "4.40.2"}, rope_theta=1e4, num_key_value_heads=4),
    ok("Lucie-7B-Instruct", "llama", {**_OF_LLAMA, "bos_token_id": 0, "eos_token_id": 267, "head_dim": 8,
       "pad_token_id": 3, "rope_theta": 20000000.0, "transformers_version": "4.46.3"}, rope_theta=2e7, head_dim=8),
    ok("SeaLLMs-v3-7B-Chat", "qwen2", {"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
       "bos_token_id": 99, "eos_token_id": 99, "max_window_layers": 2, "rms_norm_eps": 1e-6,
       "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
       "transformers_version": "4.41.2", "use_cache": False, "use_sliding_window": False},
       rope_theta=1e6, rms_norm_eps=1e-6),
    ok("Qwen3-8B", "qwen3", {"architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
       "head_dim": 16, "max_window_layers": 2, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
       "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_sliding_window": False},
       rope_theta=1e6, head_dim=16),
    ok("TinyMistral-248M-Chat", "mistral", {"architectures": ["MistralForCausalLM"], "rope_theta": 10000.0,
       "sliding_window": 1024, "torch_dtype": "float32", "transformers_version": "4.35.2"},
       rope_theta=1e4, sliding_window=1024),
)  # fmt: skip
"""The keys of published config.json files, all of them, with tiny sizes."""
AYA = {"architectures": ["CohereForCausalLM"], "layer_norm_eps": 1e-05, "logit_scale": 0.125, "rope_theta": 10000,
       "use_qk_norm": False, "unsloth_version": "2024.10.7"}  # fmt: skip

REFUSED = (
    refused("bases that differ", "llama", {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}},
            "rope_theta is 10000.0 in the file, 500000.0 in rope_parameters"),
    refused("scalings that differ", "llama", {"rope_theta": 1e4, "rope_scaling": LINEAR, "rope_parameters": {
            **LINEAR, "factor": 4.0}}, "rope_parameters and rope_scaling say different things"),
    refused("scaled in one", "llama", {"rope_scaling": LINEAR, "rope_parameters": {"rope_theta": 1e4, **DEFAULT}},
            "rope_parameters and rope_scaling say different things"),
    refused("two words for the type", "llama", {"rope_scaling": {"type": "linear", **YARN}}, "are not one word"),
    refused("rotary by type of layer", "qwen3", {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
            "rope_parameters"),
    refused("a base of a word", "llama", {"rope_theta": "1e5"}, "rope_theta must be a number above 0, is '1e5'"),
    refused("a base of zero", "llama", {"rope_parameters": {"rope_theta": 0}}, "rope_theta in rope_parameters must be"),
    refused("dynamic", "llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "of type 'dynamic' is not"),
    refused("longrope", "llama", {"rope_parameters": {"rope_type": "longrope"}}, "of type 'longrope' is not supported"),
    refused("a factor that is absent", "llama", {"rope_scaling": {"rope_type": "linear"}}, "lacks the key 'factor'"),
    refused("a key of another scaling", "llama", {"rope_scaling": {**LINEAR, "beta_fast": 32}},
            "the key 'beta_fast' of a rope_scaling of type 'linear' is not known"),
    refused("rotary on a part", "llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
    refused("rotary on a part, of 5", "llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}},
            "partial_rotary_factor = 0.25"),
    refused("an unknown number", "llama", {"logit_scale": 0.0625}, "the key 'logit_scale' = 0.0625 is not known"),
    refused("capped logits", "llama", {"final_logit_softcapping": 30.0}, "the key 'final_logit_softcapping' = 30.0 is"),
    refused("capped scores", "qwen3", {"attn_logit_softcapping": 50.0}, "the key 'attn_logit_softcapping' = 50.0 is"),
    refused("an unknown switch", "llama", {"use_qk_norm": True}, "the key 'use_qk_norm' = True is not known"),
    refused("a scale on embeddings", "llama", {"embedding_multiplier": 12.0}, "'embedding_multiplier' = 12.0"),
    refused("biases of a Mistral", "mistral", {"attention_bias": True}, "the key 'attention_bias' = True"),
    refused("a window of a Llama", "llama", {"sliding_window": 64}, "the key 'sliding_window' = 64 is not known"),
    refused("bias of a word", "llama", {"attention_bias": "true"}, "attention_bias must be true or false, is 'true'"),
    refused("dropout", "llama", {"attention_dropout": 0.1}, "attention_dropout = 0.1 is not supported"),
    refused("another activation", "llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
    refused("an activation of null", "llama", {"hidden_act": None}, "hidden_act = None is not supported"),
    refused("quantised", "llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
    refused("another head", "llama", {"architectures": ["LlamaForSequenceClassification"]}, "architectures"),
    refused("another family's class", "mistral", {"architectures": ["MixtralForCausalLM"]}, "architectures"),
    refused("code of its own", "llama", {"auto_map": {"AutoModelForCausalLM": "m.M"}}, "code of the folder's own"),
    refused("types of layers of a Llama", "llama", {"layer_types": ["sliding_attention"] * 2}, "layer_types"),
    refused("types without a window", "qwen2", {"layer_types": ["sliding_attention", "full_attention"]},
            "layer_types has 'sliding_attention', which does not go with"),
    refused("too few types", "qwen3", {"layer_types": ["full_attention"]}, "layer_types must name 2 layers"),
    refused("a head size of null for a Qwen3", "qwen3", {"head_dim": None}, "head_dim is null"),
    refused("heads that are not shared evenly", "llama", {"num_key_value_heads": 3}, "does not divide the 4"),
    refused("a size of a word", "llama", {"hidden_size": "32"}, "hidden_size must be a whole number above 0"),
    refused("no size", "llama", {"vocab_size": GONE}, "vocab_size must be a whole number above 0, is None"),
    refused("another name of a size", "llama", {"num_layers": 3}, "num_layers = 3, but num_hidden_layers = 2"),
    refused("heads cut off", "llama", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
    refused("Gemma 3", "gemma3_text", {}, "a second rotary base for its sliding-window layers"),
    refused("Gemma 2", "gemma2", {}, "soft-capped attention and logits"),
    refused("Aya Expanse", "cohere", AYA, "attention and feed-forward side by side"),
    refused("Apertus", "apertus", {}, "xIELU"),
    refused("experts", "mixtral", {}, "mixture-of-experts"),
)  # fmt: skip
