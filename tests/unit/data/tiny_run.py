"""A whole small configuration on disk: instruction set, tokenizer folder, YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def make_tokenizer(folder: Path, template: str = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a chat template, saved in ``folder``."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["question number about the answer sentence"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(folder))
    return tokenizer


def instruction_rows(count: int) -> list[dict[str, str]]:
    """Numbered Alpaca rows; every fifth has an input."""
    return [
        {
            "instruction": f"What is the question number {i} about the topic {i * 7}?",
            "input": f"Context {i}" if i % 5 == 0 else "",
            "output": f"The answer to the question number {i} is about the topic {i * 7}.",
        }
        for i in range(count)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """JSON Lines."""
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def tiny_config(folder: Path, output: str = "out", rows: int = 50, delay: float = 0.0) -> Path:
    """Write everything a run needs under ``folder``; returns the YAML's path."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model").exists():
        make_tokenizer(folder / "model")
        write_rows(folder / "instructions.jsonl", instruction_rows(rows))
    config = {
        "source_languages": ["eng"],
        "target_languages": ["por"],
        "seed": 7,
        "output_dir": str(folder / output),
        "model": str(folder / "model"),
        "shard_size": 8,
        "plugins": ["tests.unit.data.tiny_engines"],
        "instructions": {"path": str(folder / "instructions.jsonl"), "held_out": 10},
        "generation": {"engine": {"name": "tiny", "options": {"delay": delay}}, "shard_size": 8},
        "translation": {"name": "tiny", "options": {"delay": delay}},
        "quality": {"engine": {"name": "tiny"}, "tau": 0.1},
        "filters": [{"name": "length_ratio"}, {"name": "numbers"}],
        "language_id": {"engine": {"name": "tiny"}},
        "code_switch": {"dictionary": {"name": "tiny"}},
        "parallel": {"engine": {"name": "tiny"}, "train_pairs": 30, "held_out_pairs": 10},
        "packing": {"seq_length": 256},
    }
    path = folder / f"{output}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
