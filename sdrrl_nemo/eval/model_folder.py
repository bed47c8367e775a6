"""Hugging Face model folders: what is in them, whether two can be compared, and loading them offline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key, read_json, sha256_file
from sdrrl_nemo.compat.transformers5 import read_config, token_count
from sdrrl_nemo.data.text.chat_template import TemplateConfig
from sdrrl_nemo.data.text.conversation import Chat
from sdrrl_nemo.data.text.tokenizer import load_chat, tokenizer_sha256
from sdrrl_nemo.model.published.safetensors_header import stored_tensors

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
IDENTITY = ("*.json", "*.jinja", "*.model", "*.txt", *WEIGHTS)


@dataclass(frozen=True)
class ModelFolder:
    """One model on disk: its tokenizer, and a fingerprint over every file that can change an output."""

    role: str
    path: Path
    fingerprint: str
    chat: Chat
    tokenizer_sha256: str

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer, with the chat template that conversations are rendered with."""
        return self.chat.tokenizer

    @property
    def end_token_ids(self) -> list[int]:
        """Every token that ends an answer."""
        return sorted(self.chat.end_token_ids)

    @property
    def positions(self) -> int | None:
        """Tokens that fit into one text; None where the model states no limit."""
        limit = read_json(self.path / "config.json").get("max_position_embeddings")
        return None if limit is None else int(limit)


def open_model_folder(
    role: str, path: str | Path, templates: TemplateConfig | None = None, rendered: str = ""
) -> ModelFolder:
    """Check the folder and read its tokenizer (not the weights); ``role`` is ``base``, ``trained`` or, where one model
    is measured alone, ``model``. ``rendered``: another folder's chat template, to be used in place of its own."""
    folder = Path(path)
    made_by = "tools/import_gguf.py" if role == "base" else "tools/export_hf.py"
    key = "the model" if role == "model" else f"{role}_model"
    if not folder.is_dir():
        raise SdrrlError(f"{folder}: no such folder; {key} must be a Hugging Face folder as {made_by} writes it")
    if not (folder / "config.json").is_file():
        raise SdrrlError(f"{folder}/config.json: no such file; {key} is not a complete Hugging Face folder")
    if not any(True for pattern in WEIGHTS for _ in folder.glob(pattern)):
        raise SdrrlError(f"{folder}: no weights (*.safetensors) here; make the folder again with {made_by}")
    for weights in sorted(folder.glob("*.safetensors")):  # reads the header only: a cut file is found at once
        stored_tensors(weights)
    chat = load_chat(folder, templates, rendered)
    files = sorted({p for pattern in IDENTITY for p in folder.glob(pattern) if p.is_file()})
    # A template that is not the folder's own, or has a date or options written in, is no part of its files.
    about = [[p.name, sha256_file(p)] for p in files] + ([] if chat.is_own else [["", chat.tokenizer.chat_template]])
    return ModelFolder(role, folder, content_key(about), chat, tokenizer_sha256(chat.tokenizer))


def require_same_tokenizer(base: ModelFolder, trained: ModelFolder) -> None:
    """Losses per token compare only under one tokenizer."""
    if base.tokenizer_sha256 != trained.tokenizer_sha256:
        raise SdrrlError(
            f"{trained.path}: its tokenizer ({trained.tokenizer_sha256[:12]}) differs from that of {base.path} "
            f"({base.tokenizer_sha256[:12]}); losses per token cannot be compared, export again from this base model"
        )


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise SdrrlError("device is 'cuda' but PyTorch sees no GPU; use device=cpu or device=auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def load_model(folder: ModelFolder, device: torch.device) -> PreTrainedModel:
    """The model in fp32 and eval mode, with plain greedy decoding in place of the folder's sampling defaults."""
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder.path), config=read_config(folder.path), dtype=torch.float32, local_files_only=True
        )
    except Exception as e:  # transformers, safetensors and pickle each raise their own for a damaged file
        raise SdrrlError(f"{folder.path}: the model cannot be loaded ({_one_line(e)})") from None
    rows = model.get_input_embeddings().weight.shape[0]
    if (tokens := token_count(folder.tokenizer)) > rows:
        raise SdrrlError(f"{folder.path}: the tokenizer has {tokens} tokens, the model only {rows} rows")
    ends = folder.end_token_ids  # those of generation_config.json among them
    model.generation_config = GenerationConfig(do_sample=False, num_beams=1, eos_token_id=ends, pad_token_id=ends[0])
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def _one_line(e: BaseException) -> str:
    text = " ".join(str(e).split())
    return text if len(text) <= 200 else text[:197] + "..."
