"""Weight files as they arrive: each kind of damage is one sentence that names the file, before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.model.published.safetensors_header import stored_tensors
from sdrrl_nemo.model.published.weight_files import INDEX, SINGLE, check_weights, model_key
from tests.tiny_weights import CONFIG, SHAPES, tiny_folder, write_tensors

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
NORM = "model.norm.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "model")


def sharded(folder: Path, index: dict[str, str] | None = None) -> Path:
    """The folder's weights in two files, each named in the index unless ``index`` says otherwise."""
    (folder / SINGLE).unlink()
    names = sorted(SHAPES)
    parts = {FIRST: names[:5], SECOND: names[5:]}
    for file, part in parts.items():
        write_tensors(folder / file, {name: SHAPES[name] for name in part})
    weight_map = {name: file for file, part in parts.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"weight_map": {**weight_map, **(index or {})}}))
    return folder


def configured(folder: Path, **changes: object) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))


def said(folder: Path) -> str:
    with pytest.raises(SdrrlError, match=r"^[^\n]*$") as e:
        check_weights(folder)
    return str(e.value)


def test_sound_folders_are_taken(folder: Path) -> None:
    assert {n: t.shape for n, t in check_weights(folder).items()} == SHAPES
    assert check_weights(sharded(folder)).keys() == SHAPES.keys()


def test_the_library_reads_what_is_taken_and_not_what_is_refused(folder: Path) -> None:
    file = folder / SINGLE
    assert {n: tuple(t.shape) for n, t in load_file(file).items()} == SHAPES
    whole = file.read_bytes()
    for broken in (whole[:-1], whole + b"\0", whole[:4], whole[:40], b"", whole[:8] + b"[" + whole[9:]):
        file.write_bytes(broken)
        with pytest.raises(Exception, match=r"."):
            load_file(file)
        assert said(folder).startswith(str(file))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a git-lfs pointer"),
        (b"<!DOCTYPE html><html>Not found</html>", "a web page"),
        (b"\n <html>", "a web page"),
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (b"\x80\x02}q\x00." + bytes(60), "a Python pickle"),
        (b"GGUF\x03\x00\x00\x00" + bytes(60), "a GGUF file"),
        (b'{"weight_map": {}}', "JSON"),
        (bytes(64), "no safetensors file, or damaged"),
        ((9).to_bytes(8, "little") + b'{"a": 1 b', "its header is not JSON"),
        ((10**9).to_bytes(8, "little") + b"{" + bytes(60), "no safetensors file, or damaged"),
        ((500).to_bytes(8, "little") + b'{"a":', "cut: it has 13 bytes, its header alone 508"),
        ((7).to_bytes(8, "little") + b'{"a":1}', "makes no sense for tensor 'a'"),
    ],
)
def test_what_is_no_safetensors_file(content: bytes, words: str, folder: Path) -> None:
    (folder / SINGLE).write_bytes(content)
    message = said(folder)
    assert message.startswith(f"{folder / SINGLE}: ") and words in message


def _tensor(folder: Path, name: str, shape: tuple[int, ...] | None, dtype: str = "F32") -> None:
    shapes = {k: v for k, v in {**SHAPES, name: shape}.items() if v is not None}
    write_tensors(folder / SINGLE, shapes, dtype)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: _tensor(f, NORM, None), f"tensor '{NORM}' is missing"),
        (lambda f: _tensor(f, "lm_head.weight", None), "tie_word_embeddings is not set, so there must be one"),
        (lambda f: _tensor(f, NORM, (9,)), f"tensor '{NORM}' is [9], config.json asks for [8]"),
        (lambda f: _tensor(f, "model.embed_tokens.weight", (6, 8)), "is [6, 8], config.json asks for [7, 8]"),
        (lambda f: _tensor(f, "model.layers.0.self_attn.q_proj.bias", (8,)), "is none that a llama of this config"),
        (lambda f: _tensor(f, "model.layers.2.mlp.up_proj.weight", (12, 8)), "is none that a llama of this config"),
        (lambda f: _tensor(f, "lm_head.bias", (7,)), "'lm_head.bias' is none that a llama of this config"),
        (lambda f: _tensor(f, "score.weight", (2, 8)), "'score.weight' is none that a llama"),
        (lambda f: write_tensors(f / SINGLE, SHAPES, "I8"), "has the type I8, only F32, BF16, F16 are served"),
        (lambda f: write_tensors(f / SINGLE, SHAPES, "F64"), "has the type F64"),
        (lambda f: configured(f, num_hidden_layers=3), "tensor 'model.layers.2.input_layernorm.weight' is missing"),
        (lambda f: configured(f, attention_bias=True), "self_attn.q_proj.bias' is missing"),
        (lambda f: configured(f, vocab_size=8), "is [7, 8], config.json asks for [8, 8]"),
        (lambda f: (f / SINGLE).unlink(), f"neither {SINGLE} nor {INDEX} is here"),
        (lambda f: (f / SINGLE).rename(f / "pytorch_model.bin"), "weights in PyTorch's own format only"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "the folder has an adapter"),
        (lambda f: (f / "config.json").unlink(), "no Hugging Face model here"),
        (lambda f: (f / "config.json").write_text("<html>"), "not valid JSON"),
    ],
)
def test_what_is_not_the_model_of_config_json(damage: Callable[[Path], object], words: str, folder: Path) -> None:
    damage(folder)
    message = said(folder)
    assert message.startswith(str(folder)) and words in message


def test_an_index_and_its_files(folder: Path) -> None:
    sharded(folder)
    (folder / SECOND).unlink()
    assert said(folder) == (
        f"{folder / SECOND}: no such file, but {INDEX} names it (tensor '{sorted(SHAPES)[5]}'); fetch it"
    )
    write_tensors(folder / SECOND, {name: SHAPES[name] for name in sorted(SHAPES)[4:]})
    assert f"{SECOND}: tensor '{sorted(SHAPES)[4]}' is here and in {FIRST} too" in said(folder)
    (folder / INDEX).write_text("{}")
    assert "has no weight_map" in said(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {NORM: "../other.safetensors"}}))
    assert "no file of the folder" in said(folder)


def test_an_index_that_says_other_places(folder: Path) -> None:
    sharded(folder, {NORM: FIRST})
    assert said(folder) == f"{folder / INDEX}: tensor '{NORM}' is in {SECOND}, the index says {FIRST}"
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(SHAPES, FIRST)}))
    assert "is in no file, the index says" in said(folder)


def test_the_single_file_goes_before_an_index_as_in_transformers(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(SHAPES, "absent.safetensors")}))
    assert check_weights(folder).keys() == SHAPES.keys()


def test_a_tied_output_layer_beside_the_embeddings(folder: Path) -> None:
    configured(folder, tie_word_embeddings=True)
    assert "lm_head.weight" not in check_weights(folder)  # it is the embedding: nothing is lost
    file = folder / SINGLE
    at = stored_tensors(file)["lm_head.weight"].end - 1
    raw = bytearray(file.read_bytes())
    raw[at] = 1
    file.write_bytes(raw)
    assert "'lm_head.weight' differs from the embeddings" in said(folder)


def test_frequencies_that_old_versions_wrote_are_left_alone(folder: Path) -> None:
    _tensor(folder, "model.layers.0.self_attn.rotary_emb.inv_freq", (2,))
    assert check_weights(folder).keys() == SHAPES.keys()


def test_a_model_is_known_by_its_files(folder: Path, tmp_path: Path) -> None:
    before = model_key(folder)
    moved = folder.rename(tmp_path / "elsewhere")
    assert model_key(moved) == before
    write_tensors(moved / SINGLE, SHAPES, fill=1)
    assert model_key(moved) != before
    write_tensors(moved / SINGLE, SHAPES)
    configured(moved, rope_theta=5e5)
    assert model_key(moved) != before


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_expected_tensors_are_those_of_transformers(kind: str, tied: bool, tmp_path: Path) -> None:
    """With as little said in config.json as its defaults allow."""
    sizes = {"hidden_size": 64, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 32}
    options = {**sizes, "vocab_size": 11, "tie_word_embeddings": tied}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**options))
    state = {k: torch.zeros(v.shape) for k, v in model.named_parameters()}
    save_file(state, tmp_path / SINGLE)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "hidden_act": "silu", **options}))
    assert {k: t.shape for k, t in check_weights(tmp_path).items()} == {k: tuple(v.shape) for k, v in state.items()}
