"""The tokenizer of a model folder with the run's chat template, its fingerprint, and single questions and answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import canonical_json, read_json
from sdrrl_nemo.compat import transformers5
from sdrrl_nemo.data.text.chat_template import TemplateConfig, fixed, missing_headers, with_header
from sdrrl_nemo.data.text.conversation import Chat, Unmaskable, assistant, said, user
from sdrrl_nemo.data.text.token_ids import token_ids
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


def load_chat(folder: str | Path, templates: TemplateConfig | None = None, rendered: str = "", **options: Any) -> Chat:
    """Tokenizer and chat template of a Hugging Face folder, tried out; ``options`` go to the tokenizer.

    The tokenizer returned has the template that ``templates`` asks for, or the one that an earlier run used
    (``rendered``). SdrrlError when the folder has none and none is asked for, when the template cannot be rendered,
    when no token ends its answers, or when the loss of a conversation would have no exact place.
    """
    path = check_model_folder(folder)
    try:
        tokenizer = transformers5.load_tokenizer(path, **options)
    except SdrrlError:
        raise
    except BaseException as e:  # the Rust library raises nothing narrower for a file that it cannot read, and panics
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        raise SdrrlError(f"{path}: the tokenizer cannot be loaded ({said(e)})") from None
    text = rendered or fixed(tokenizer.chat_template, templates or TemplateConfig(), str(path))
    if not text:
        raise SdrrlError(
            f"{path}: the tokenizer has no chat template; use an instruction-tuned model, or set "
            "templates.chat_template to llama2, chatml, alpaca or a file"
        )
    try:
        return _tried(tokenizer, text, path)
    except BaseException as e:  # some files are read without a word, and the library panics over the first text
        if type(e).__name__ != "PanicException":
            raise
        raise SdrrlError(f"{path}: the tokenizer's library broke down ({said(e)}); tokenizer.json is damaged") from None


def _tried(tokenizer: PreTrainedTokenizerBase, template: str, path: Path) -> Chat:
    """The chat with the first way of asking for an answer that has an exact mask."""

    def render(text: str, conversation: Any, prompt: bool) -> str:
        options = {"chat_template": text, "add_generation_prompt": prompt, "tokenize": False}
        return str(tokenizer.apply_chat_template(conversation, **options))

    try:
        headers = missing_headers(template, render)
    except Exception as e:  # jinja2 for what does not compile, anything where an expression fails
        raise SdrrlError(f"{path}: the chat template cannot be rendered ({said(e)})") from None
    ends, own = _stated_ends(path), tokenizer.chat_template
    for number, header in enumerate(headers):
        tokenizer.chat_template = with_header(template, header) if header else template
        chat = Chat(tokenizer, ends, is_own=tokenizer.chat_template == own)
        try:
            chat.check(str(path))
        except SdrrlError:
            if number + 1 == len(headers):
                raise
        else:
            break
    return chat


def _stated_ends(path: Path) -> list[int]:
    """The end tokens that generation_config.json and config.json name."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        if (path / name).is_file():
            document = read_json(path / name)
            ends = document.get("eos_token_id") if isinstance(document, dict) else None
            found |= {e for e in (ends if isinstance(ends, list) else [ends]) if type(e) is int}
    return sorted(found)


def load_tokenizer(folder: str | Path, templates: TemplateConfig | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of :func:`load_chat`."""
    return load_chat(folder, templates).tokenizer


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
    conversations = [[user(question)] for question in questions]
    if not conversations:
        return []
    # all in one call: a call of its own for each costs more than the template
    texts = tokenizer.apply_chat_template(conversations, add_generation_prompt=True, tokenize=False)
    return [str(text) for text in texts]


def tokenize(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], answers: Sequence[str]
) -> list[tuple[list[int], int]]:
    """(token ids, number of question tokens) of questions with one answer each.

    The loss mask is 0 on the first ``number of question tokens`` ids and 1 on the rest (`Chat.encode`). SdrrlError for
    one whose loss has no exact place.
    """
    out = []
    asked = [[user(q), assistant(a)] for q, a in zip(questions, answers, strict=True)]
    for found in Chat(tokenizer).encode(asked):
        if isinstance(found, Unmaskable):
            raise SdrrlError(found.reason)
        out.append((found.tokens, found.spans[0][0]))
    return out
