"""Chat template and loss mask: one question and answer -> token ids, 1 on the answer and the end-of-text token."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import canonical_json
from sdrrl_nemo.compat import transformers5
from sdrrl_nemo.data.text.tokenizer_fingerprint import AROUND, cuts, probes, stated

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_model_folder(folder: str | Path) -> Path:
    """The folder, if it holds a model configuration and a tokenizer; else a SdrrlError that says how to make it."""
    path = Path(folder)
    missing = [n for n in ("tokenizer.json", "tokenizer_config.json") if not (path / n).is_file()]
    if missing:
        what = "no such folder" if not path.is_dir() else f"no {missing[0]} in this folder"
        raise SdrrlError(f"{path}: {what}; make the base model with tools/import_gguf.py --output {path}")
    return path


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder; SdrrlError when it lacks a chat template or an end-of-text token."""
    path = check_model_folder(folder)
    try:
        tokenizer = transformers5.load_tokenizer(path)
        if tokenizer.chat_template:
            prompt_text(tokenizer, "?")  # a template that is no Jinja shows here and not at the first row
    except SdrrlError:
        raise
    except BaseException as e:  # the Rust library raises nothing narrower for a file that it cannot read, and panics
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        raise SdrrlError(f"{path}: the tokenizer cannot be loaded ({' '.join(str(e).split())[:200]})") from None
    if not tokenizer.chat_template:
        raise SdrrlError(f"{path}: the tokenizer has no chat template; use an instruction-tuned model")
    if tokenizer.eos_token_id is None:
        raise SdrrlError(f"{path}: the tokenizer names no end-of-text token (eos_token)")
    return tokenizer


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Fingerprint of everything that decides token ids, the same under every version of transformers.

    Vocabulary, merges in their order, added tokens, end token and chat template as they are; normaliser, pre-tokenizer
    and the tokens put around a text by what they do (data/text/tokenizer_fingerprint.py), because versions write the
    same one differently. Padding and truncation are state that a call leaves behind, not a part of the tokenizer.
    """
    texts = probes(tokenizer.get_vocab())
    options = {"padding": False, "truncation": False, "return_attention_mask": False}
    parts = {
        **stated(tokenizer),
        "cuts": cuts(tokenizer),
        "ids": token_ids(tokenizer, texts),
        "ids_with_special_tokens": [list(ids) for ids in tokenizer(list(AROUND), **options)["input_ids"]],
    }
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def prompt_texts(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]) -> list[str]:
    """The questions as the model sees them, up to where its answer begins."""
    conversations = [[{"role": "user", "content": question}] for question in questions]
    if not conversations:
        return []
    # all in one call: a call of its own for each costs more than the template
    texts = tokenizer.apply_chat_template(conversations, add_generation_prompt=True, tokenize=False)
    return [str(text) for text in texts]


def prompt_text(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """:func:`prompt_texts` of one question."""
    return prompt_texts(tokenizer, [question])[0]


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text as it stands: no special tokens added, nothing padded or cut."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        options = {"add_special_tokens": False, "padding": False, "truncation": False, "return_attention_mask": False}
        return [list(ids) for ids in tokenizer(list(texts), **options)["input_ids"]]
    # the Rust tokenizer itself, without offsets: half the time of the call above, for the same ids
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
    return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def tokenize(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], answers: Sequence[str]
) -> list[tuple[list[int], int]]:
    """(token ids, number of question tokens) per sample.

    ids = ids(chat template of the question) + ids(answer) + [eos]; nothing is truncated. The loss mask is 0 on the
    first ``number of question tokens`` ids and 1 on the rest.
    """
    if not questions:
        return []
    prompt_ids = token_ids(tokenizer, prompt_texts(tokenizer, questions))
    answer_ids = token_ids(tokenizer, answers)
    end = int(tokenizer.eos_token_id)
    return [([*p, *a, end], len(p)) for p, a in zip(prompt_ids, answer_ids, strict=True)]
