"""Models and packed sets that no one has to download: a configuration, weights drawn by name, rows drawn by name.

Every tensor has a seed derived from its own name, so the same numbers come out on every machine, whatever the order
and the number of threads. NumPy draws them: its normal numbers are the same everywhere, torch's differ between CPUs.

    python tools/gpu/made_up.py FOLDER SHAPE ...
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.common.seeding import named_generator
from tools.gpu.shapes import Shape, shape

ROOT_SEED = 20261128
SCALE = 0.02
"""Of the weights, as GPT-2 and Llama begin; norms lie around 1, so that a forgotten norm weight shows."""
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
DONE = "made_up.json"


def inputs(shape: Shape, folder: Path) -> tuple[Path, Path]:
    """(model folder, data folder) of a shape below ``folder``, made if they are not there; both name their content."""
    model, data = folder / "models" / shape.name, folder / "data" / shape.name
    made = folder / f"{shape.name}.{DONE}"
    facts = shape.facts()
    if not (made.is_file() and read_json(made).get("facts") == facts):
        digest = _model(shape, model)
        manifest = _packed(shape, model, data)
        write_json(made, {"facts": facts, "weights": digest, "data": manifest["manifest_sha256"]})
    return model, data


def fingerprint(shape: Shape, folder: Path) -> dict[str, str]:
    """Hashes of what ``inputs`` made: of every tensor's beginning, and of the packed set."""
    made = read_json(folder / f"{shape.name}.{DONE}")
    return {"weights": made["weights"], "data": made["data"]}


def _model(shape: Shape, folder: Path) -> str:
    """config.json, a tokenizer, weights in bf16: whatever the precision, all runs begin at the same values."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    _tokenizer(folder)
    write_json(folder / "config.json", dict(shape.config))

    def draw(item: tuple[str, tuple[int, ...]]) -> tuple[str, torch.Tensor]:
        name, size = item
        values = named_generator(ROOT_SEED, shape.name, name).standard_normal(size, np.float32)
        values *= SCALE
        values += 1.0 if "norm" in name else 0.0
        return name, torch.from_numpy(values).to(torch.bfloat16)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        state = dict(pool.map(draw, tensors(shape.config)))
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].flatten()[:64].float().numpy().tobytes())
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return digest.hexdigest()


def tensors(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, size) of every tensor of a Llama in a Hugging Face folder."""
    hidden, wide, rows = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, groups = (config[key] * config["head_dim"] for key in ("num_attention_heads", "num_key_value_heads"))
    yield "model.embed_tokens.weight", (rows, hidden)
    for i in range(config["num_hidden_layers"]):
        of_layer = f"model.layers.{i}."
        yield f"{of_layer}input_layernorm.weight", (hidden,)
        yield f"{of_layer}post_attention_layernorm.weight", (hidden,)
        yield f"{of_layer}self_attn.q_proj.weight", (heads, hidden)
        yield f"{of_layer}self_attn.k_proj.weight", (groups, hidden)
        yield f"{of_layer}self_attn.v_proj.weight", (groups, hidden)
        yield f"{of_layer}self_attn.o_proj.weight", (hidden, heads)
        yield f"{of_layer}mlp.gate_proj.weight", (wide, hidden)
        yield f"{of_layer}mlp.up_proj.weight", (wide, hidden)
        yield f"{of_layer}mlp.down_proj.weight", (hidden, wide)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (rows, hidden)


def _tokenizer(folder: Path) -> None:
    """Bytes and three special tokens: enough to be a tokenizer with a chat template; rows are drawn as ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0])
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)


def _packed(shape: Shape, model: Path, folder: Path) -> dict[str, Any]:
    """Rows of questions and answers of uneven lengths, packed by the project's own packer; returns the manifest."""
    from sdrrl_nemo.data.packing.best_fit import best_fit_decreasing
    from sdrrl_nemo.data.packing.packed import PackedWriter
    from sdrrl_nemo.data.text.tokenizer import load_tokenizer, tokenizer_sha256

    sizes = list(_lengths(shape))
    writer = PackedWriter(folder, "train", vocab_size=shape.config["vocab_size"], seq_length=shape.row_tokens)
    for pack in best_fit_decreasing([question + answer for question, answer in sizes], shape.row_tokens):
        writer.add_pack(_samples(shape, [(i, *sizes[i]) for i in pack]))
    return writer.finish({"tokenizer_sha256": tokenizer_sha256(load_tokenizer(model))})


def _lengths(shape: Shape) -> Iterator[tuple[int, int]]:
    """(question tokens, answer tokens) of samples that fill the rows: short ones are many, as instructions are."""
    rng = named_generator(ROOT_SEED, shape.name, "lengths")
    left = shape.rows * shape.row_tokens
    while left > 0:
        question, answer = (int(rng.integers(4, most)) for most in (shape.row_tokens // 8, shape.row_tokens // 4))
        yield question, answer
        left -= question + answer


def _samples(shape: Shape, sizes: Sequence[tuple[int, int, int]]) -> list[Any]:
    from sdrrl_nemo.data.packing.packed import TokenizedSample
    from sdrrl_nemo.data.rows import SUBSETS

    found = []
    for i, question, answer in sizes:
        rng = named_generator(ROOT_SEED, shape.name, "sample", i)
        # few ids are frequent, as in text, so that there is something to learn in few steps; products are the same on
        # every machine, powers are not
        square = np.square(rng.random(question + answer))
        ids = (shape.config["vocab_size"] * (square * square)).astype(np.int32)
        mask = np.asarray([0] * question + [1] * answer, np.uint8)
        found.append(TokenizedSample(f"{i + 1:016x}", SUBSETS[int(rng.integers(len(SUBSETS)))], ids, mask))
    return found


def main(argv: Sequence[str]) -> None:
    """Make the inputs of some shapes."""
    for name in argv[1:]:
        inputs(shape(name), Path(argv[0]))
        print(f"{name}: made", flush=True)


if __name__ == "__main__":
    sys.exit(run(main))
