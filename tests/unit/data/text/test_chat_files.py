"""What an exported folder says of conversations, read back by transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GenerationConfig

from sdrrl_nemo.data.packing.packed import rendering
from sdrrl_nemo.data.text.chat_files import carry
from sdrrl_nemo.data.text.chat_template import CHATML, TemplateConfig
from sdrrl_nemo.data.text.conversation import user
from sdrrl_nemo.data.text.tokenizer import load_chat
from tests.unit.data.text.chat_templates import LLAMA3, NO_PROMPT, TOKENIZERS


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "checkpoints" / "step-000003"
    folder.mkdir(parents=True)
    return folder


def test_template_and_end_tokens_are_those_of_training(tmp_path: Path, checkpoint: Path) -> None:
    folder = TOKENIZERS["llama3"](tmp_path / "model")
    (folder / "generation_config.json").write_text('{"eos_token_id": 3, "temperature": 0.6}')
    own = tmp_path / "own.jinja"
    own.write_text(LLAMA3)
    chat = load_chat(folder, TemplateConfig(chat_template=str(own), date="2025-02-03"))
    (checkpoint.parent.parent / "chat_template.jinja").write_text(str(chat.tokenizer.chat_template))
    carry(folder, checkpoint)
    text = AutoTokenizer.from_pretrained(folder).apply_chat_template([user("q")], tokenize=False)
    assert "Today Date: 03 Feb 2025\n" in text
    generation = GenerationConfig.from_pretrained(folder)
    assert set(generation.eos_token_id) == {3, *chat.end_token_ids}
    assert chat.tokenizer.convert_tokens_to_ids("<|eot_id|>") in generation.eos_token_id
    assert generation.temperature == 0.6
    carried = load_chat(folder)
    assert carried.tokenizer.chat_template == chat.tokenizer.chat_template
    assert carried.end_token_ids == set(generation.eos_token_id)


def test_a_prompt_of_transformers_has_the_header_that_training_had(tmp_path: Path, checkpoint: Path) -> None:
    """A template without a generation prompt is carried with one."""
    folder = TOKENIZERS["llama3"](tmp_path / "model")
    (folder / "chat_template.jinja").write_text(NO_PROMPT)
    [prompt] = load_chat(folder).prompts([[user("q")]])
    carry(folder, checkpoint)
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template([user("q")], add_generation_prompt=True)
    assert prompt == list(theirs["input_ids"] if hasattr(theirs, "keys") else theirs)


def test_a_base_model_without_a_template_stays_without(tmp_path: Path, checkpoint: Path) -> None:
    folder = TOKENIZERS["llama2"](tmp_path / "model")
    before = sorted(p.name for p in folder.iterdir())
    carry(folder, checkpoint)
    assert sorted(p.name for p in folder.iterdir()) == before


def test_training_renders_as_its_packed_set_says(tmp_path: Path) -> None:
    """A template named in the configuration goes with the set; the model's own is taken from the model."""
    path = tmp_path / "train.manifest.json"
    assert rendering(tmp_path, "train") == {"templates": None}
    asked = {"chat_template": "chatml", "date": "2024-07-26", "options": {}}
    path.write_text(json.dumps({"chat_template": CHATML, "templates": asked}))
    assert rendering(tmp_path, "train") == {"rendered": CHATML}
    own = {**asked, "chat_template": "", "options": {"enable_thinking": False}}
    path.write_text(json.dumps({"chat_template": CHATML, "templates": own}))
    assert rendering(tmp_path, "train") == {"templates": TemplateConfig(**own)}
