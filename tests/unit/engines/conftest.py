"""A tiny but real model, GGUF file and imported folder, made once for all engine tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from sdrrl_nemo.model.gguf import import_gguf

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN, LAYERS, HEADS, KV_HEADS, INNER = 32, 2, 4, 2, 64


def _write(
    path: Path,
    pre: str = "smollm",
    architecture: str = "llama",
    more: dict[str, float] | None = None,
    extra: str | None = None,
) -> Path:
    """Random weights (seed 0), vocabulary of the 256 bytes, three control tokens and a few merges.

    ``more``: further fields, ``extra``: one further tensor.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet())]
    merges = [("Ċ", "Ċ"), ("Ġ", "Ġ"), ("Ġ", "a")]
    tokens += ["".join(m) for m in merges]
    w = gguf.GGUFWriter(path, architecture)
    w.add_block_count(LAYERS)
    w.add_context_length(256)
    w.add_embedding_length(HIDDEN)
    w.add_feed_forward_length(INNER)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_rope_freq_base(10000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(len(tokens))
    for name, value in (more or {}).items():
        w.add_float32(name, value)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    w.add_token_merges([" ".join(m) for m in merges])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_pad_token_id(2)
    w.add_add_bos_token(False)
    w.add_chat_template(TEMPLATE)

    def add(name: str, *shape: int) -> None:
        w.add_tensor(name, (rng.standard_normal(shape) * 0.2).astype(np.float32))

    add("token_embd.weight", len(tokens), HIDDEN)
    add("output_norm.weight", HIDDEN)
    kv = HIDDEN * KV_HEADS // HEADS
    for i in range(LAYERS):
        add(f"blk.{i}.attn_norm.weight", HIDDEN)
        add(f"blk.{i}.ffn_norm.weight", HIDDEN)
        add(f"blk.{i}.attn_q.weight", HIDDEN, HIDDEN)
        add(f"blk.{i}.attn_k.weight", kv, HIDDEN)
        add(f"blk.{i}.attn_v.weight", kv, HIDDEN)
        add(f"blk.{i}.attn_output.weight", HIDDEN, HIDDEN)
        add(f"blk.{i}.ffn_gate.weight", INNER, HIDDEN)
        add(f"blk.{i}.ffn_up.weight", INNER, HIDDEN)
        add(f"blk.{i}.ffn_down.weight", HIDDEN, INNER)
    if extra is not None:
        add(extra, len(tokens))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


@pytest.fixture(scope="session")
def write_gguf() -> Callable[..., Path]:
    """Function that writes the tiny GGUF file: two Llama layers and a byte-level BPE tokenizer."""
    return _write


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory, write_gguf: Callable[..., Path]) -> Path:
    """Path of the tiny GGUF file."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny_model(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hugging Face folder imported from the tiny GGUF file."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    assert import_gguf(tiny_gguf, folder)
    return folder
