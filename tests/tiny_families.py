"""Tiny random models of every served family: the real config and model classes of transformers, small sizes."""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from sdrrl_nemo.common.fileio import read_json, write_json
from tests.launch import ROOT
from tests.tiny import TOKENIZER_FILES

VOCAB = 323
"""Odd, so that tensor parallelism has to pad it."""
WINDOW = 64
_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "rms_norm_eps": 1e-5,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


_QWEN_HEADS = {"num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 72}
_SHAPES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "llama2": (LlamaConfig, {"num_key_value_heads": 6}),
    "seallm": (LlamaConfig, {"num_key_value_heads": 6, "vocab_size": 485, "rms_norm_eps": 1e-6}),
    "smollm2": (
        LlamaConfig,
        {"vocab_size": 49152, "hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3}
        | {"rope_theta": 100000.0, "tie_word_embeddings": True},
    ),
    "llama3.1": (LlamaConfig, {"rope_theta": 500000.0, "rope_scaling": _LLAMA3_ROPE}),
    "llama3.2": (
        LlamaConfig,
        {"head_dim": 16, "rope_theta": 500000.0, "tie_word_embeddings": True}
        | {"rope_scaling": {**_LLAMA3_ROPE, "factor": 32.0, "low_freq_factor": 0.5, "high_freq_factor": 3.0}},
    ),
    "llama-linear": (LlamaConfig, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "llama-biased": (LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama-attention-biased": (LlamaConfig, {"attention_bias": True, "tie_word_embeddings": True}),
    "qwen2.5": (Qwen2Config, {"rope_theta": 1000000.0, "tie_word_embeddings": True}),
    "qwen2.5-yarn": (Qwen2Config, {**_QWEN_HEADS, "rope_scaling": _YARN}),
    "qwen3": (Qwen3Config, {"head_dim": 24, "rope_theta": 1000000.0}),
    "qwen3-biased": (Qwen3Config, {"head_dim": 24, "rope_theta": 1000000.0, "attention_bias": True}),
    "mistral": (MistralConfig, {"head_dim": 16, "sliding_window": WINDOW}),
}
"""(class, what differs from ``_SIZES``), in the names of transformers 4."""
FAMILIES = tuple(_SHAPES)
OF_5 = ("llama3.1", "llama-biased", "qwen2.5-yarn", "qwen3", "mistral")
"""Untidy folders whose config.json has version 5's ``rope_parameters`` alone."""
SPARE = 23
"""Rows of an untidy model that are no token of its tokenizer."""


def config(name: str) -> PretrainedConfig:
    """Config of one family, shaped like its released models."""
    kind, changes = _SHAPES[name]
    return kind(**{**_SIZES, **deepcopy(changes)})  # transformers 5 writes into what it is given


def in_one_dialect(folder: Path, name: str) -> None:
    """Rewrite config.json with the rotary settings in the words of one version, whichever is installed."""
    changes = _SHAPES[name][1]
    theta, scaling = changes.get("rope_theta", 10000.0), changes.get("rope_scaling")
    path = folder / "config.json"
    document = {k: v for k, v in read_json(path).items() if k not in ("rope_parameters", "rope_theta", "rope_scaling")}
    if name in OF_5:
        document["rope_parameters"] = {"rope_theta": theta, **(scaling or {"rope_type": "default"})}
    else:
        document |= {"rope_theta": theta, "rope_scaling": scaling}
    write_json(path, document)


PADDED = ("smollm2", "qwen2.5-yarn")
"""Their three key/value heads need a zero head where tensor parallelism is 2."""


def tiny_tokenizer(folder: Path, vocab: int, turn_end: str = "</s>") -> None:
    """Byte-level BPE with exactly ``vocab`` tokens, trained on the test data, with a chat template that ends a turn
    with ``turn_end``, which may be another token than the end of a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(dict.fromkeys(("<pad>", "<s>", "</s>", turn_end))),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(ROOT / "tests" / "data" / "transfer_small.jsonl")], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    said = "<s>{{ m['role'] }}: {{ m['content'] }}"
    fast.chat_template = "{% for m in messages %}" + said + turn_end + "{% endfor %}"
    assert len(fast) == vocab
    fast.save_pretrained(folder)


def family_model(folder: Path, name: str, smollm2: Path, untidy: bool = False) -> Path:
    """An HF folder with seeded fp32 weights; norms and biases random too, so that a forgotten one shows.

    ``untidy``: as released folders are, with rows that are no tokens, turns that end with a token of their own, one
    dialect of config.json, and a generation_config.json that says less than the template.
    """
    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_config(config(name), dtype=torch.float32)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "norm" in key:
                p.uniform_(0.5, 1.5)
            elif key.endswith("bias"):
                p.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    if untidy:
        in_one_dialect(folder, name)
        write_json(folder / "generation_config.json", {"eos_token_id": 2, "temperature": 0.6, "pad_token_id": -1})
    if name == "smollm2":  # its real tokenizer
        for file in TOKENIZER_FILES:
            if (smollm2 / file).is_file():
                shutil.copy(smollm2 / file, folder / file)
    elif untidy:
        tiny_tokenizer(folder, model.config.vocab_size - SPARE, "<|end|>")
    else:
        tiny_tokenizer(folder, model.config.vocab_size)
    return folder
