"""A tiny but real NLLB folder: NllbTokenizer with its 202 language tokens, an M2M-100 model that learnt ten lines."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import sentencepiece
import torch
from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizerFast
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES
from transformers.utils import sentencepiece_model_pb2_new

LINES = {
    "eng_Latn": ["the cat sleeps", "I read a book", "water is cold", "open the door", "two birds sing"],
    "ces_Latn": ["kočka spí", "čtu knihu", "voda je studená", "otevři dveře", "dva ptáci zpívají"],
    "jpn_Jpan": ["猫は寝る", "本を読む", "水は冷たい", "ドアを開けて", "鳥が二羽歌う"],
}
POSITIONS = 64


def build(folder: Path, steps: int = 60) -> Path:
    """Train SentencePiece and, seeded, the model: English -> Czech and Japanese, told apart by the language token."""
    folder.mkdir(parents=True)
    text = folder / "lines.txt"
    text.write_text("\n".join(line for lines in LINES.values() for line in lines), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=120,
        model_type="bpe",
        character_coverage=1.0,
        minloglevel=2,
    )
    (folder / "sentencepiece.bpe.vocab").unlink()
    text.unlink()
    tokenizer = save_tokenizer(folder)
    model = untrained(tokenizer, width=48, decoder_layers=2)
    _train(model, tokenizer, steps)
    model.save_pretrained(folder)
    return folder


def untrained(tokenizer: NllbTokenizerFast, width: int, decoder_layers: int) -> M2M100ForConditionalGeneration:
    """A seeded M2M-100 of `POSITIONS` positions for the tokenizer's tokens, without dropout."""
    torch.manual_seed(3)
    config = M2M100Config(
        vocab_size=len(tokenizer),
        d_model=width,
        encoder_layers=1,
        decoder_layers=decoder_layers,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=2 * width,
        decoder_ffn_dim=2 * width,
        max_position_embeddings=POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
    )
    return M2M100ForConditionalGeneration(config)


def save_tokenizer(folder: Path) -> NllbTokenizerFast:
    """The fast tokenizer of the folder's SentencePiece model, written there; the same under transformers 4.57 and 5."""
    # In 5 its class ignores vocab_file, and takes no language tokens from a folder without a configuration.
    # The schema that transformers ships: sentencepiece's own may ask for a newer protobuf than is installed.
    with mock.patch.dict(sys.modules, {"sentencepiece.sentencepiece_model_pb2": sentencepiece_model_pb2_new}):
        tokenizer = NllbTokenizerFast.from_pretrained(
            folder, src_lang="eng_Latn", additional_special_tokens=FAIRSEQ_LANGUAGE_CODES
        )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _train(model: M2M100ForConditionalGeneration, tokenizer: NllbTokenizerFast, steps: int) -> None:
    sources, targets = [], []
    for code in ("ces_Latn", "jpn_Jpan"):
        tokenizer.tgt_lang = code
        sources += LINES["eng_Latn"]
        targets += [tokenizer(text_target=line).input_ids for line in LINES[code]]
    inputs = tokenizer(sources, return_tensors="pt", padding=True)
    longest = max(map(len, targets))
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in targets])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
