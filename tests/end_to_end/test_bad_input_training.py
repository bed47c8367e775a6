"""Bad input of the recipe and the export: one sentence that says what, where and what to do; exit code 2; no trace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch import ROOT, torchrun
from tests.tiny import packed_set, tiny_model
from tests.tiny_tokenizer import TOKENS
from tests.warm import for_torchrun, python

RECIPE = "recipes.sdrrl_pretrain"
EXPORT = "tools.export_hf"


def _config(folder: Path, name: str, **changes: Any) -> str:
    settings: dict[str, Any] = {
        "run_dir": str(folder / "run"),
        "model": {"hf_path": str(folder / "model")},
        "data": {"path": str(folder / "data")},
        "trainer": {"precision": "fp32", "max_steps": 1, "num_threads": 1},
    }
    for key, value in changes.items():
        section, _, leaf = key.partition("__")
        if leaf:
            settings[section][leaf] = value
        else:
            settings[section] = value
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def _broken_copies(folder: Path) -> None:
    """A good model and set, and one copy for each kind of damage."""
    tiny_model(folder / "model", layers=2)
    packed_set(folder / "data", folder / "model", samples=12)
    shutil.copytree(folder / "data", folder / "truncated")
    binary = folder / "truncated" / "train.bin"
    binary.write_bytes(binary.read_bytes()[:-1])

    shutil.copytree(folder / "model", folder / "other_tokenizer")
    path = folder / "other_tokenizer" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-1]
    path.write_text(json.dumps(tokenizer))

    tiny_model(folder / "fewer_rows", layers=2, rows=TOKENS - 1)
    shutil.copytree(folder / "model", folder / "no_weights")
    (folder / "no_weights" / "model.safetensors").unlink()
    shutil.copytree(folder / "model", folder / "other_family")
    config = json.loads((folder / "other_family" / "config.json").read_text())
    (folder / "other_family" / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))


def _cases(f: Path) -> dict[str, tuple[str, list[str], dict[str, str], str]]:
    good = _config(f, "good")
    two = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    broken = f / "broken.yaml"
    broken.write_text("model: {hf_path: [")
    return {
        "missing configuration": (RECIPE, ["--config", str(f / "no.yaml")], {}, "no.yaml: no such configuration file"),
        "broken YAML": (RECIPE, ["--config", str(broken)], {}, "broken.yaml: not valid YAML"),
        "unknown key": (
            RECIPE,
            ["--config", good, "trainer.micro_batchsize=2"],
            {},
            "unknown key 'trainer.micro_batchsize'; did you mean 'trainer.micro_batch_size'?",
        ),
        "wrong type": (RECIPE, ["--config", good, "trainer.tp=two"], {}, "trainer.tp"),
        "missing model": (
            RECIPE,
            ["--config", _config(f, "nomodel", model__hf_path=str(f / "nowhere"))],
            {},
            "nowhere: no Hugging Face model here",
        ),
        "other family": (
            RECIPE,
            ["--config", _config(f, "family", model__hf_path=str(f / "other_family"))],
            {},
            "model type 'gpt2' is not supported",
        ),
        "missing data": (
            RECIPE,
            ["--config", _config(f, "nodata", data__path=str(f / "nodata"))],
            {},
            "no packed set here; run tools/preprocess_sdrrl.py first",
        ),
        "truncated bin": (
            RECIPE,
            ["--config", _config(f, "cut", data__path=str(f / "truncated"))],
            {},
            "train.bin: ",
        ),
        "tokenizer changed": (
            RECIPE,
            ["--config", _config(f, "tok", model__hf_path=str(f / "other_tokenizer"))],
            {},
            "preprocess again with the model's tokenizer",
        ),
        "vocabulary mismatch": (
            RECIPE,
            ["--config", _config(f, "vocab", model__hf_path=str(f / "fewer_rows"))],
            {},
            f"the tokenizer has {TOKENS} tokens, the model only vocab_size = {TOKENS - 1} rows",
        ),
        "TP and heads": (
            RECIPE,
            ["--config", good, "trainer.tp=2"],
            two,
            "tensor_model_parallel_size=2 does not divide the 9 attention heads; set model.pad_heads_to=2",
        ),
        "PP and layers": (
            RECIPE,
            ["--config", good, "trainer.pp=3"],
            {**two, "WORLD_SIZE": "3"},
            "pipeline_model_parallel_size=3 does not divide the 2 layers",
        ),
        "TP and processes": (RECIPE, ["--config", good, "trainer.tp=2"], {}, "does not divide the 1 processes"),
        "batch sizes": (
            RECIPE,
            ["--config", good, "trainer.micro_batch_size=3"],
            {},
            "trainer.global_batch_size=8 is not a multiple",
        ),
        "export without run": (EXPORT, ["--output", str(f / "hf")], {}, "give --run, or both"),
        "export of nothing": (
            EXPORT,
            ["--checkpoint", str(f / "nockpt"), "--base", str(f / "model"), "--output", str(f / "hf")],
            {},
            "no finished Megatron checkpoint here",
        ),
        "export without checkpoint over something": (
            EXPORT,
            ["--checkpoint", str(f / "nockpt"), "--base", str(f / "model"), "--output", str(f / "model")],
            {},
            "no finished Megatron checkpoint here",
        ),
    }


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    _broken_copies(folder)
    return folder


def test_each_is_one_clear_sentence(workspace: Path) -> None:
    cases = _cases(workspace)
    spec, out = workspace / "cases.json", workspace / "results.json"
    spec.write_text(json.dumps([case[:3] for case in cases.values()]))
    done = python(ROOT / "tests/end_to_end/cli_worker.py", str(spec), str(out))
    assert done.returncode == 0, done.stdout[-4000:]
    for (name, case), result in zip(cases.items(), json.loads(out.read_text()), strict=True):
        lines = [line for line in result["stderr"].splitlines() if line.startswith("error: ")]
        assert result["code"] == 2, (name, result)
        assert len(lines) == 1, (name, result)
        assert case[3] in lines[0], (name, lines[0])
        assert "Traceback" not in result["stderr"], (name, result)
    assert not (workspace / "run" / "checkpoints").exists()


def test_under_torchrun_one_rank_speaks(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(workspace, "torchrun", data__path=str(workspace / "truncated"))
    with for_torchrun() as forked:
        for name, value in forked.items():
            monkeypatch.setenv(name, value)
        done = torchrun(2, "recipes/sdrrl_pretrain.py", "--config", config)
    assert done.returncode != 0
    said = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert "train.bin" in said[0]
    assert "sdrrl_nemo/" not in done.stdout, "a stack trace of ours reached the user"
