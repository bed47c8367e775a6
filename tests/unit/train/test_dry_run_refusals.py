"""``--dry-run`` names whatever is wrong with a published folder or does not go with the data: exit 2, one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from recipes.sdrrl_pretrain import main
from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.fileio import read_json, write_json
from tests.tiny import packed_set, tiny_model
from tests.tiny_tokenizer import ROWS, TOKENS

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refusals")
    tiny_model(folder / "model", layers=1, tied=False)
    packed_set(folder / "data", folder / "model", samples=12, vocab_size=ROWS)
    return folder


def set_key(folder: Path, key: str, value: Any) -> None:
    write_json(folder / "config.json", {**read_json(folder / "config.json"), key: value})


def two_bases(folder: Path) -> None:
    """One in each dialect, whichever version wrote the file."""
    set_key(folder, "rope_theta", 100000.0)
    set_key(folder, "rope_parameters", {"rope_theta": 5e5})


def set_tensor(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    tensors = load_file(folder / WEIGHTS) | {name: tensor}
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / WEIGHTS, {"format": "pt"})


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-7])


def shard(folder: Path, twice: bool) -> None:
    """Two files with an index; the second is absent, or holds a tensor of the first as well."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    first = {k: v for k, v in tensors.items() if k != NORM}
    save_file(first if not twice else tensors, folder / "a.safetensors")
    if twice:
        save_file({NORM: tensors[NORM]}, folder / "b.safetensors")
    write_json(folder / INDEX, {"weight_map": {**dict.fromkeys(first, "a.safetensors"), NORM: "b.safetensors"}})


def fewer_rows(folder: Path, rows: int) -> None:
    set_key(folder, "vocab_size", rows)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        set_tensor(folder, name, load_file(folder / WEIGHTS)[name][:rows].contiguous())


def template(folder: Path, text: str) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    write_json(path, {**read_json(path), "chat_template": text})


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no Hugging Face model here"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), f"neither {WEIGHTS} nor {INDEX} is here"),
    "cut": (cut, f"{WEIGHTS}: cut: it has"),
    "empty": (lambda f: (f / WEIGHTS).write_bytes(b""), f"{WEIGHTS}: an empty file"),
    "a web page": (lambda f: (f / WEIGHTS).write_text("<html>404</html>"), "no safetensors file but a web"),
    "a pointer": (lambda f: (f / WEIGHTS).write_text("version https://git-lfs.github.com/spec\n"), "git-lfs pointer"),
    "another format": (lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"), "PyTorch's own format only"),
    "an absent shard": (lambda f: shard(f, twice=False), "b.safetensors: no such file, but"),
    "a tensor twice": (lambda f: shard(f, twice=True), f"b.safetensors: tensor '{NORM}' is here and in a.safetensors"),
    "a tensor too few": (lambda f: set_tensor(f, NORM, None), f"tensor '{NORM}' is missing"),
    "a tensor too many": (lambda f: set_tensor(f, "score.weight", torch.ones(2)), "'score.weight' is none that"),
    "a wrong shape": (lambda f: set_tensor(f, NORM, torch.ones(3)), f"tensor '{NORM}' is [3], config.json asks for"),
    "a wrong type": (lambda f: set_tensor(f, NORM, torch.ones(72).to(torch.int8)), "has the type I8"),
    "two bases": (two_bases, "rope_theta is 100000.0 in the fi"),
    "an unknown key": (lambda f: set_key(f, "logit_scale", 0.5), "the key 'logit_scale' = 0.5 is not known"),
    "too long samples": (lambda f: set_key(f, "max_position_embeddings", 8), "max_position_embeddings = 8 is shorter"),
    "fewer rows than tokens": (lambda f: fewer_rows(f, TOKENS - 1), f"the tokenizer has {TOKENS} tokens"),
    "fewer rows than packed for": (lambda f: fewer_rows(f, ROWS - 1), f"packed for a vocabulary of {ROWS}"),
    "no template": (lambda f: template(f, ""), "chat template"),
    "a template that does not compile": (lambda f: template(f, "{% for"), "model"),
    "a template that raises": (lambda f: template(f, "{{ raise_exception('no') }}"), "model"),
    "a damaged tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_dry_run_names_it(
    name: str, workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, words = CASES[name]
    model = shutil.copytree(workspace / "model", tmp_path / "model")
    damage(model)
    settings = {
        "run_dir": str(tmp_path / "run"),
        "model": {"hf_path": str(model)},
        "data": {"path": str(workspace / "data")},
        "trainer": {"precision": "fp32", "accelerator": "cpu", "max_steps": 1},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    assert run(main, ["--config", str(tmp_path / "run.yaml"), "--dry-run"]) == 2
    [said] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert str(tmp_path) in said or "data" in said
    assert words in said
    assert not (tmp_path / "run").exists()


def test_more_rows_than_tokens_are_no_error(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Qwen2.5 has them: a set that was packed for the tokens alone, as preprocessing does."""
    data = packed_set(tmp_path / "data", workspace / "model", samples=12)
    assert read_json(data / "train.manifest.json")["vocab_size"] == TOKENS < ROWS
    settings = {"run_dir": str(tmp_path / "run"), "model": {"hf_path": str(workspace / "model")}}
    settings |= {"data": {"path": str(data)}, "trainer": {"precision": "fp32", "max_steps": 1}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    assert run(main, ["--config", str(tmp_path / "run.yaml"), "--dry-run"]) == 0
