"""A tokenizer of a thousand tokens with the untidy habits of released ones, learnt from texts that ship.

What real tokenizers do and a tidy toy would hide:

* The chat template ends a turn with ``<|im_end|>``; the end-of-text token is another, ``<|endoftext|>``.
* There is no token to pad with, and none to begin with.
* The special tokens have the highest ids, with reserved ones among them that no text uses.
* The template puts a system turn before a conversation that has none, and a line break after every turn.
* Digits are cut one by one before anything else, text is normalised, and letters beyond ASCII take several tokens.
* Models have more rows than the tokenizer has tokens (``ROWS``, a prime: no parallel size divides it).
"""

from __future__ import annotations

import json
from functools import cache
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.launch import ROOT

TOKENS = 1000
ROWS = 1031
TURN_END, TEXT_END = "<|im_end|>", "<|endoftext|>"
SPECIAL = ("<|reserved_0|>", TEXT_END, "<|im_start|>", "<|reserved_1|>", TURN_END, "<|reserved_2|>")
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OTHER_SCRIPTS = (
    "夏になると葉は緑色をしています。秋には黄色や赤に変わります。",
    "도서관은 아침 아홉 시에 문을 열고 저녁 여섯 시에 닫습니다.",
    "पुस्तकालय सुबह नौ बजे खुलता है और शाम छह बजे बंद होता है।",
    "تفتح المكتبة أبوابها في الساعة التاسعة صباحا وتغلق في السادسة مساء.",
    "Библиотека открывается в девять утра и закрывается в шесть вечера.",
    "ห้องสมุดเปิดเวลาเก้าโมงเช้าและปิดเวลาหกโมงเย็น",
)
"""Enough that their letters are made of learnt pairs of bytes, too little that they become words."""


@cache
def _backend() -> str:
    """The tokenizer.json: the same bytes every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=TOKENS - len(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return str(tokenizer.to_str())


def _texts() -> list[str]:
    """The first English instructions (all would take seconds), Portuguese articles, the other scripts a few times."""
    with open(ROOT / "data" / "instructions_en.jsonl", encoding="utf-8") as f:
        english = [row[key] for row in map(json.loads, islice(f, 351)) for key in ("instruction", "output")]
    with open(ROOT / "data" / "benchmarks" / "xlsum" / "portuguese_test.jsonl", encoding="utf-8") as f:
        portuguese = [row["text"] for row in map(json.loads, f)]
    return [*english, *portuguese, *OTHER_SCRIPTS * 5]


def save_tokenizer(folder: Path) -> Path:
    """Write the tokenizer into ``folder``, as a released model's folder has it."""
    fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_backend()), eos_token=TEXT_END)
    fast.chat_template = TEMPLATE
    assert len(fast) == TOKENS
    fast.save_pretrained(folder)
    return folder
