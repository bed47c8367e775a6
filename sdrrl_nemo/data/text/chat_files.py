"""What an exported folder says of conversations: its chat template, and which tokens end an answer.

transformers and vLLM read the template from chat_template.jinja and the end tokens from generation_config.json. Both
must be those of training: a model that learnt to end its turn with ``<|im_end|>`` goes on for ever where only
``</s>`` ends generation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.data.text.tokenizer import load_chat

RUN_TEMPLATE = "chat_template.jinja"
"""In a run's folder as in a model's."""


def template_of_run(checkpoint: Path) -> str:
    """The chat template that the run of a checkpoint trained with; '' where the checkpoint lies in no run's folder."""
    path = checkpoint.parent.parent / RUN_TEMPLATE
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def carry(folder: Path, checkpoint: Path) -> None:
    """Write template and end tokens into a model folder that is being made, which has its tokenizer already.

    The template is that of the checkpoint's run, else the folder's own; a base model without any stays without.
    """
    template = template_of_run(checkpoint)
    settings = folder / "tokenizer_config.json"
    if not template and not _has_template(folder):
        return
    chat = load_chat(folder, rendered=template)
    text = str(chat.tokenizer.chat_template)
    (folder / RUN_TEMPLATE).write_text(text, encoding="utf-8")
    written = read_json(settings)
    if "chat_template" in written:  # the file beside it is read first, but not by every program
        write_json(settings, {**written, "chat_template": text})
    path = folder / "generation_config.json"
    ends = sorted(chat.end_token_ids)
    write_json(path, {**_generation(path), "eos_token_id": ends if len(ends) > 1 else ends[0]})


def _has_template(folder: Path) -> bool:
    settings = read_json(folder / "tokenizer_config.json")
    return (folder / RUN_TEMPLATE).is_file() or bool(settings.get("chat_template"))


def _generation(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise SdrrlError(f"{path}: expected an object, found {type(found).__name__}")
    return found
