"""A tiny Llama with its own byte-level tokenizer and chat template, and held-out files of a few rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUESTIONS = [
    ("What is rain?", "Water that falls from clouds in drops.", "O que é chuva?", "Água que cai das nuvens em gotas."),
    ("Name a colour.", "Blue.", "Diga uma cor.", "Azul."),
    ("Where is Lisbon?", "Lisbon is in Portugal.", "Onde fica Lisboa?", "Lisboa fica em Portugal."),
    ("How do bees help?", "They carry pollen.", "Como as abelhas ajudam?", "Elas levam pólen."),
    ("What is ice?", "Frozen water.", "O que é gelo?", "Água congelada."),
]
PAIRS = [
    ("Open the window.", "Abra a janela."),
    ("Save your work before you leave.", "Salve seu trabalho antes de sair."),
    ("Click on the button to start.", "Clique no botão para iniciar."),
    ("The screen is dark.", "A tela está escura."),
]


def make_model_folder(folder: Path, seed: int, extra_token: bool = False) -> Path:
    """Random tiny Llama (2 layers, 32 wide) over a byte vocabulary; it has more rows than tokens, and its template ends
    a turn with another token than the end of text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(["<|new|>"] if extra_token else [])]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|endoftext|>", additional_special_tokens=special
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 5,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder() -> Callable[..., Path]:
    return make_model_folder


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("models") / "base", seed=1)


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("models") / "trained", seed=2)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    held = tmp_path / "data" / "heldout" / "eng-por"
    held.mkdir(parents=True)
    names = ("question", "answer", "question_target", "answer_target")
    with open(held / "questions.jsonl", "w", encoding="utf-8") as f:
        for i, row in enumerate(QUESTIONS):
            f.write(json.dumps({"key": f"{i:016x}", **dict(zip(names, row, strict=True))}) + "\n")
    with open(held / "pairs.jsonl", "w", encoding="utf-8") as f:
        for i, (s, t) in enumerate(PAIRS):
            f.write(json.dumps({"key": f"{i:016x}", "source": s, "target": t}) + "\n")
    return tmp_path / "data"
