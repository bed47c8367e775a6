"""Tiny random models of every served family: the real config and model classes of transformers, small sizes."""

from __future__ import annotations

import shutil
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


def config(name: str) -> PretrainedConfig:
    """Config of one family, shaped like its released models."""
    s = _SIZES
    return {
        "llama2": lambda: LlamaConfig(**{**s, "num_key_value_heads": 6}),
        "seallm": lambda: LlamaConfig(**{**s, "num_key_value_heads": 6, "vocab_size": 485, "rms_norm_eps": 1e-6}),
        "smollm2": lambda: LlamaConfig(
            **{**s, "vocab_size": 49152, "hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3},
            rope_theta=100000.0,
            tie_word_embeddings=True,
        ),
        "llama3.1": lambda: LlamaConfig(**s, rope_theta=500000.0, rope_scaling=_LLAMA3_ROPE),
        "llama3.2": lambda: LlamaConfig(
            **s,
            head_dim=16,
            rope_theta=500000.0,
            rope_scaling={**_LLAMA3_ROPE, "factor": 32.0, "low_freq_factor": 0.5, "high_freq_factor": 3.0},
            tie_word_embeddings=True,
        ),
        "llama-linear": lambda: LlamaConfig(**s, rope_scaling={"type": "linear", "factor": 2.0}),
        "qwen2.5": lambda: Qwen2Config(**s, rope_theta=1000000.0, tie_word_embeddings=True),
        "qwen2.5-yarn": lambda: Qwen2Config(
            **{**s, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 72}, rope_scaling=_YARN
        ),
        "qwen3": lambda: Qwen3Config(**s, head_dim=24, rope_theta=1000000.0),
        "mistral": lambda: MistralConfig(**s, head_dim=16, sliding_window=WINDOW),
    }[name]()


FAMILIES = (
    "llama2",
    "seallm",
    "smollm2",
    "llama3.1",
    "llama3.2",
    "llama-linear",
    "qwen2.5",
    "qwen2.5-yarn",
    "qwen3",
    "mistral",
)
PADDED = ("smollm2", "qwen2.5-yarn")
"""Their three key/value heads need a zero head where tensor parallelism is 2."""


def tiny_tokenizer(folder: Path, vocab: int) -> None:
    """Byte-level BPE with exactly ``vocab`` tokens, trained on the test data, with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(ROOT / "tests" / "data" / "transfer_small.jsonl")], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    fast.chat_template = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    assert len(fast) == vocab
    fast.save_pretrained(folder)


def family_model(folder: Path, name: str, smollm2: Path) -> Path:
    """An HF folder with seeded fp32 weights; norms and biases random too, so that a forgotten one shows."""
    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_config(config(name), dtype=torch.float32)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "norm" in key:
                p.uniform_(0.5, 1.5)
            elif key.endswith("bias"):
                p.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    if name == "smollm2":  # its real tokenizer
        for file in TOKENIZER_FILES:
            if (smollm2 / file).is_file():
                shutil.copy(smollm2 / file, folder / file)
    else:
        tiny_tokenizer(folder, model.config.vocab_size)
    return folder
