"""Small tokenizers as the served families have them, the same bytes every time: what is stated is written out here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

TEMPLATE = "{% for m in messages %}{{ bos_token or '' }}[{{ m['role'] }}] {{ m['content'] }}{{ eos_token }}{% endfor %}"
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Qwen2.5 cuts a text."""
_WORDS = ("the", "quick", "question", "answer", "informação", "também", "coração", "der", "und", "Good", "morning")


def _merges(words: Iterable[str], known: Callable[[str], bool]) -> list[tuple[str, str]]:
    """Each word is joined from the left, a letter at a time."""
    found: list[tuple[str, str]] = []
    for word in words:
        for i in range(1, len(word)):
            if known(word[i]) and (pair := (word[:i], word[i])) not in found:
                found.append(pair)
    return found


def _save(backend: Tokenizer, folder: Path, settings: dict[str, Any], model_type: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    config = {"model_type": model_type, "architectures": []}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    settings |= {"chat_template": TEMPLATE, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def qwen_like(folder: Path) -> Path:
    """Byte-level, NFC, Qwen2.5's own cuts, no beginning token; the class that transformers 5 builds anew."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = [byte_level.pre_tokenize_str(w)[0][0] for w in (*_WORDS, *(f" {w}" for w in _WORDS))]
    merges = _merges(words, lambda c: True)
    tokens = dict.fromkeys([*alphabet, *(a + b for a, b in merges)])
    backend = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    control = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    backend.add_tokens([AddedToken("<tool_call>", normalized=False)])
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
    }
    return _save(backend, folder, settings, "qwen2")


def llama_like(folder: Path) -> Path:
    """SentencePiece's byte pairs as Llama 2 has them: ``▁`` before words, bytes for unknown letters, ``<s>``."""
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    letters = ["\u2581", *map(chr, range(0x61, 0x7B)), *"GãçéÁ0123456789,.!"]
    merges = _merges([*(f"\u2581{w}" for w in _WORDS), *_WORDS], lambda c: True)
    tokens = dict.fromkeys(["<unk>", "<s>", "</s>", *bytes_, *letters, *(a + b for a, b in merges)])
    backend = Tokenizer(
        models.BPE(
            vocab={t: i for i, t in enumerate(tokens)},
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": None,
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": False,
    }
    return _save(backend, folder, settings, "llama")
