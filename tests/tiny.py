"""A tiny random Llama with SmolLM2's heads and a tiny tokenizer, and a small packed set: real code, small sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.data.packing.best_fit import best_fit_decreasing
from sdrrl_nemo.data.packing.packed import PackedWriter, TokenizedSample
from sdrrl_nemo.data.rows import SUBSETS
from sdrrl_nemo.data.text.tokenizer import load_tokenizer, tokenize, tokenizer_sha256
from tests.tiny_tokenizer import ROWS, save_tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def tiny_model(
    folder: Path, tokenizer_from: Path | None = None, *, tied: bool = True, layers: int = 4, rows: int | None = None
) -> Path:
    """9 query heads and 3 key/value heads of size 8, like SmolLM2-135M; weights fp32, seeded.

    The tokenizer is the tiny one with more ``rows`` than tokens, or that of the model folder ``tokenizer_from`` with
    its number of rows.
    """
    torch.manual_seed(7)
    if rows is None:
        rows = read_json(tokenizer_from / "config.json")["vocab_size"] if tokenizer_from else ROWS
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=72,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=8,
        max_position_embeddings=512,
        rope_theta=100000.0,
        rms_norm_eps=1e-5,
        initializer_range=0.08,
        tie_word_embeddings=tied,
        torch_dtype="float32",
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # norms away from 1, so that a forgotten norm weight shows
        for name, p in model.named_parameters():
            if "norm" in name:
                p.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    tokenizer_files(folder, tokenizer_from)
    return folder


def tokenizer_files(folder: Path, tokenizer_from: Path | None = None) -> None:
    """The tiny tokenizer, or the one of a model folder, into ``folder``; its end-of-text token into the configuration.

    As in released folders, generation may end at other tokens than the configuration names.
    """
    if tokenizer_from is None:
        save_tokenizer(folder)
    else:
        for name in TOKENIZER_FILES:
            if (tokenizer_from / name).is_file():
                shutil.copy(tokenizer_from / name, folder / name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turn_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    about = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    write_json(folder / "config.json", {**read_json(folder / "config.json"), **about})
    generation = {**about, "eos_token_id": sorted({tokenizer.eos_token_id, turn_end})}
    write_json(folder / "generation_config.json", generation)


def packed_set(
    folder: Path,
    model: Path,
    *,
    seq_length: int = 64,
    samples: int = 61,
    vocab_size: int | None = None,
    name: str = "train",
) -> Path:
    """Random samples of uneven subset sizes and lengths for a model, packed greedily in order.

    ``vocab_size``: what the set says that it was packed for; None: the tokens of the tokenizer, as preprocessing does.
    """
    rng = np.random.default_rng(5)
    tokenizer = AutoTokenizer.from_pretrained(model)
    subsets = rng.choice(SUBSETS, size=samples, p=[0.3, 0.2, 0.2, 0.15, 0.1, 0.05])
    subsets[: len(SUBSETS)] = SUBSETS
    writer = PackedWriter(folder, name, vocab_size=vocab_size or len(tokenizer), seq_length=seq_length)
    pack: list[TokenizedSample] = []
    used = 0
    for i in range(samples):
        question, answer = int(rng.integers(2, 12)), int(rng.integers(1, 20))
        tokens = rng.integers(3, len(tokenizer), size=question + answer).astype(np.int32)
        mask = np.asarray([0] * question + [1] * answer, np.uint8)
        if used + len(tokens) > seq_length:
            writer.add_pack(pack)
            pack, used = [], 0
        pack.append(TokenizedSample(f"{i + 1:016x}", str(subsets[i]), tokens, mask))
        used += len(tokens)
    writer.add_pack(pack)
    writer.finish({"tokenizer_sha256": tokenizer_sha256(tokenizer)})
    return folder


def pack_jsonl(rows: Path, folder: Path, model: Path, seq_length: int) -> Path:
    """Tokenise and pack rows {"subset", "question", "answer"} with the project's own code."""
    tokenizer = load_tokenizer(model)
    records = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    encoded = tokenize(tokenizer, [r["question"] for r in records], [r["answer"] for r in records])
    writer = PackedWriter(folder, "train", vocab_size=len(tokenizer), seq_length=seq_length)
    for pack in best_fit_decreasing([len(t) for t, _ in encoded], seq_length):
        samples = []
        for i in pack:
            tokens, prompt = encoded[i]
            mask = np.asarray([0] * prompt + [1] * (len(tokens) - prompt), np.uint8)
            samples.append(TokenizedSample(f"{i + 1:016x}", records[i]["subset"], np.asarray(tokens, np.int32), mask))
        writer.add_pack(samples)
    writer.finish({"tokenizer_sha256": tokenizer_sha256(tokenizer)})
    return folder
