"""The files of an exported folder: types of the weights, rows that nothing trained, generation_config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GenerationConfig

from sdrrl_nemo.compat.transformers5 import load_tokenizer, token_count
from sdrrl_nemo.model.published.generation import end_tokens, generation_config
from sdrrl_nemo.model.published.safetensors_header import stored_tensors
from sdrrl_nemo.model.published.weight_files import INDEX, tensors_of
from sdrrl_nemo.model.published.writing import names_of, rounded, write_config, write_weights
from tests.tiny_families import tiny_tokenizer
from tests.tiny_tokenizer import ROWS, TEXT_END, TOKENS, TURN_END, save_tokenizer

ROWS_OF = "embedding.word_embeddings.weight"


def test_each_tensor_gets_the_type_it_had(tmp_path: Path) -> None:
    """bf16 weights with fp32 norms, as some models are published; float32 on request."""
    base = {"w": torch.zeros(3, 2).bfloat16(), "norm": torch.zeros(3), "h": torch.zeros(1).half()}
    save_file(base, tmp_path / "model.safetensors")
    stored = stored_tensors(tmp_path / "model.safetensors")
    exact = {name: torch.rand(t.shape) for name, t in base.items()}
    for dtype, types in (
        ("base", [t.dtype for t in base.values()]),
        ("float32", [torch.float32] * 3),
        ("bfloat16", [torch.bfloat16] * 3),
        ("fp32", [torch.float32] * 3),
    ):
        found = rounded(exact, stored, dtype)
        assert [found[name].dtype for name in base] == types
        assert all(torch.equal(found[name], exact[name].to(t)) for name, t in zip(base, types, strict=True))
    assert names_of(rounded(exact, stored, "base")) == ["bfloat16", "float32", "float16"]


def test_large_weights_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrrl_nemo.model.published.writing.SHARD", "1KB")
    state = {f"w{i}": torch.full((200,), float(i)) for i in range(5)}
    write_weights(tmp_path, state)
    assert (tmp_path / INDEX).is_file() and tensors_of(tmp_path).keys() == state.keys()
    parts = [load_file(file) for file in tmp_path.glob("*.safetensors")]
    assert len(parts) > 1
    assert all(torch.equal(part[name], state[name]) for part in parts for name in part)


@pytest.mark.parametrize("start", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_that_nothing_changed_keep_the_bits_they_had(start: torch.dtype, tmp_path: Path) -> None:
    from sdrrl_nemo.model.export import _keep_untouched_rows

    before = torch.rand(8, 4)
    save_file({"model.embed_tokens.weight": before}, tmp_path / "model.safetensors")
    from sdrrl_nemo.model.hf_bridge import HFTensors

    trained = torch.cat([before.to(start).float(), torch.zeros(2, 4)])  # as a run in that precision began; padded
    trained[:3] += 0.5  # trained
    trained[6:8] *= 0.9  # weight decay, of rows that are no tokens
    expected = torch.cat([trained[:3], before[3:], torch.zeros(2, 4)])
    tensors = {ROWS_OF: trained.clone()}
    config: Any = None  # not looked at for the embeddings
    _keep_untouched_rows(tensors, HFTensors(tmp_path), config, tokens=6)
    assert torch.equal(tensors[ROWS_OF], expected)


def test_every_token_that_ends_an_answer(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_tokenizer(tmp_path / "a"))
    ids = tokenizer.convert_tokens_to_ids([TEXT_END, TURN_END])
    assert end_tokens(tokenizer) == ids
    tiny_tokenizer(tmp_path / "b", 300)  # its turns end with the end of a text
    assert end_tokens(load_tokenizer(tmp_path / "b")) == [2]
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert end_tokens(tokenizer) == ids[:1]
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"  # no token ends its turns
    assert end_tokens(tokenizer) == ids[:1]


WHOLE = {"eos_token_id": [0, 1], "do_sample": True, "temperature": 0.6, "top_p": 0.9}


@pytest.mark.parametrize(
    ("written", "kept", "words"),
    [
        (None, {"eos_token_id": "ends"}, []),
        ("{", {"eos_token_id": "ends"}, ["not valid JSON", "written anew from config.json"]),
        ({}, {"eos_token_id": "ends"}, []),
        ({"eos_token_id": 7}, {"eos_token_id": [7, "ends"]}, ["eos_token_id lacked", TURN_END]),
        (
            {"eos_token_id": [5000, "x"], "pad_token_id": -1},
            {"eos_token_id": "ends"},
            ["eos_token_id had [5000, 'x']", "pad_token_id had [-1]"],
        ),
        (
            {"temperature": 0.9, "top_p": 0.6, "eos_token_id": [7]},
            {"temperature": 0.9, "top_p": 0.6, "do_sample": True, "eos_token_id": [7, "ends"]},
            ["temperature, top_p without do_sample"],
        ),
        (
            {"temperature": 1.0, "top_k": 50, "do_sample": False},
            {"temperature": 1.0, "top_k": 50, "do_sample": False, "eos_token_id": "ends"},
            [],
        ),
    ],
)
def test_generation_settings_are_mended_and_it_is_said(
    written: Any, kept: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(save_tokenizer(tmp_path))
    ends = end_tokens(tokenizer)
    if written is not None:
        text = written if isinstance(written, str) else json.dumps(written)
        (tmp_path / "generation_config.json").write_text(text)
    found, notes = generation_config(tmp_path, {"pad_token_id": None}, tokenizer, ROWS)
    stops = kept["eos_token_id"]
    expected = ends if stops == "ends" else [*stops[:-1], *ends]
    assert found == {**kept, "eos_token_id": expected}
    assert all(any(word in note for note in notes) for word in words)
    assert len(notes) == 0 if not words else notes
    GenerationConfig(**found).save_pretrained(tmp_path / "again")  # transformers refuses to save what contradicts
    assert GenerationConfig.from_pretrained(tmp_path / "again").eos_token_id == expected


def test_config_json_is_the_published_one_with_the_type_of_the_weights(tmp_path: Path) -> None:
    base, folder = tmp_path / "base", tmp_path / "out"
    folder.mkdir()
    save_tokenizer(base)
    document = {"model_type": "llama", "rope_theta": 5e5, "torch_dtype": "float32", "vocab_size": ROWS, "my_note": None}
    (base / "config.json").write_text(json.dumps(document))
    write_config(base, folder, "LlamaForCausalLM", "bfloat16", {"eos_token_id": 3})
    written = json.loads((folder / "config.json").read_text())
    assert written["architectures"] == ["LlamaForCausalLM"] and written["rope_parameters"]["rope_theta"] == 5e5
    assert AutoConfig.from_pretrained(folder).dtype == torch.bfloat16
    assert written["my_note"] is None and written["vocab_size"] == ROWS
    assert token_count(load_tokenizer(folder)) == TOKENS
    assert json.loads((folder / "generation_config.json").read_text()) == {"eos_token_id": 3}
