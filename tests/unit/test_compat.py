"""The one place of all patches: versions, what a patch refuses, transformers 4.57 and 5, NumPy 2, login nodes."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy
import pytest
from transformers import AutoConfig, LlamaConfig

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat import registry, transformers5, versions
from sdrrl_nemo.compat.registry import PATCHES, Patch
from sdrrl_nemo.compat.versions import PURPOSES, SUPPORTED, TESTED, TRY_ANYWAY, check_versions, within
from tests.launch import ROOT
from tests.tiny_families import tiny_tokenizer
from tests.unit.model.published_cases import LLAMA3

HERE = Path(__file__).parent


def _only(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    """These versions are installed and nothing else."""
    given = {k.replace("_", "-"): v for k, v in found.items()}
    known = {p: given.get(p.replace("_", "-")) for p in SUPPORTED}
    monkeypatch.setattr(versions, "installed_version", lambda package: known[package])


GOOD = {
    "python": "3.12.3",
    "torch": "2.10.0a0+b558c986e8.nv25.11",
    "numpy": "2.1.0",
    "transformers": "5.24.0",
    "megatron_core": "0.15.3",
    "nemo_toolkit": "2.7.3",
    "lightning": "2.5.6",
}


@pytest.mark.parametrize("purpose", PURPOSES)
def test_what_is_installed_here_is_served(purpose: str) -> None:
    assert check_versions(purpose) == []


def test_each_wrong_version_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    _only(monkeypatch, **GOOD, transformer_engine="2.9.0+70f53666")
    assert check_versions("train") == []
    _only(monkeypatch, **{**GOOD, "python": "3.10.2", "lightning": "2.6.0"}, transformer_engine="2.20.2")
    python, lightning, engine = check_versions("train")
    assert python.startswith("Python 3.10.2 is installed, served are >=3.11,<3.14")
    assert "with 2.6 nemo.lightning" in lightning and "install 'lightning>=2.4,<2.6'" in lightning
    assert "transformer-engine 2.20.2" in engine and "megatron-core 0.15.3 names" in engine


def test_what_is_missing_is_said_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    _only(monkeypatch, python="3.13.0", torch="2.13.0", triton="3.9.0")
    assert check_versions("kernels") == []
    assert [p.partition(" ")[0] for p in check_versions("evaluate")] == ["numpy", "transformers"]
    with pytest.raises(ValueError, match="none of train"):
        check_versions("cooking")


@pytest.mark.parametrize(
    ("version", "versions_", "inside"),
    [
        ("2.13.0+cpu", ">=2.9,<2.14", True),
        ("2.14.0", ">=2.9,<2.14", False),
        ("2.10.0", ">=2.9,<2.10", False),
        ("4.56.9", ">=4.57,<6", False),
        ("a build of my own", ">=2.9", False),
    ],
)
def test_ranges(version: str, versions_: str, inside: bool) -> None:
    assert within(version, versions_) is inside


def test_the_documented_matrix_is_the_one_in_the_code() -> None:
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")]
    cells = {row[0].strip("`"): row[1:] for row in rows}
    for package, wanted in SUPPORTED.items():
        assert cells[package][0] == f"`{wanted.versions}`", package
    for name, patch in PATCHES.items():
        assert cells[name][:2] == [f"{patch.package} `{patch.versions}`", patch.why], name
    for run in TESTED:
        assert [run.name, *run.cells()] in rows, run.name
    assert "25.11" in page


for _module in sorted((ROOT / "sdrrl_nemo" / "compat").rglob("[a-z]*.py")):  # each registers its patches
    importlib.import_module(".".join(_module.relative_to(ROOT).with_suffix("").parts))


def _thing() -> Any:
    def method(a: int, b: int = 1) -> int:
        return a + b

    return types.SimpleNamespace(method=method, __name__="thing")


def _patch(**changed: str) -> Patch:
    return Patch(**{"name": "p", "package": "numpy", "versions": ">=1", "why": "a test", **changed})


def test_a_patch_looks_before_it_replaces() -> None:
    thing = _thing()
    old = thing.method
    source = registry._source_sha256(old)
    assert _patch().replace(thing, "method", print, parameters=["a", "b"], source=source[:12]) is old
    assert thing.method is print


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"parameters": ["a"]}, r"thing\.method takes \(a, b\), not \(a\)"),
        ({"source": "0123"}, r"the source of thing\.method is another one"),
    ],
)
def test_what_looks_otherwise_is_not_replaced(options: dict[str, Any], found: str) -> None:
    thing = _thing()
    old = thing.method
    with pytest.raises(SdrrlError, match=f"^patch 'p' is for numpy >=1, installed is {numpy.__version__}: {found}; "):
        _patch().replace(thing, "method", print, **options)
    assert thing.method is old
    with pytest.raises(SdrrlError, match=r"thing\.absent is not there; install 'numpy>=1' \(docs/versions\.md\)$"):
        _patch().replace(thing, "absent", print)


def test_another_version_stops_before_anything_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    thing, foreign = _thing(), _patch(versions="==0.1")
    with pytest.raises(SdrrlError, match=rf"it was not checked there \(to try it all the same set {TRY_ANYWAY}=1\)"):
        foreign.replace(thing, "method", print)
    with pytest.raises(SdrrlError, match="installed is none"):
        _patch(package="no-such-package").get(thing, "method")
    monkeypatch.setenv(TRY_ANYWAY, "1")
    assert foreign.get(thing, "method", parameters=["a", "b"])
    with pytest.raises(SdrrlError, match="takes"):
        foreign.get(thing, "method", parameters=[])


def test_patches_have_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="two patches"):
        registry.register("step-guard", "numpy", "again")
    assert all(p.why and re.fullmatch(r"[a-z0-9-]+", name) for name, p in PATCHES.items())


V4 = {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": LLAMA3}
V5 = {"model_type": "llama", "rope_parameters": {"rope_theta": 5e5, **LLAMA3}}
PLAIN4 = {"model_type": "llama", "rope_theta": 1e5, "rope_scaling": None}
PLAIN5 = {"model_type": "llama", "rope_parameters": {"rope_theta": 1e5, "rope_type": "default"}}


@pytest.mark.parametrize("written", [V4, V5])
def test_scaled_rotary_settings_of_either_version(written: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(written))
    config = transformers5.read_config(tmp_path)
    assert transformers5.rope_theta(config) == 5e5
    assert transformers5.rope_scaling(config) == LLAMA3
    both = transformers5.with_both_ropes(written)
    assert both["rope_theta"] == 5e5 and both["rope_scaling"] == LLAMA3
    assert both["rope_parameters"] == {"rope_theta": 5e5, **LLAMA3}
    assert transformers5.with_both_ropes(both) == both


@pytest.mark.parametrize("written", [PLAIN4, PLAIN5])
def test_plain_rotary_settings_of_either_version(written: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(written))
    config = transformers5.read_config(tmp_path)
    assert transformers5.rope_theta(config) == 1e5 and transformers5.rope_scaling(config) == {}
    both = transformers5.with_both_ropes(written)
    assert both["rope_theta"] == 1e5 and both["rope_scaling"] is None
    assert both["rope_parameters"] == PLAIN5["rope_parameters"]


def test_a_folder_for_both_is_read_alike_without_our_help(tmp_path: Path) -> None:
    """By transformers' own reader, whichever is installed: as another program reads our export."""
    LlamaConfig(rope_theta=7e4, num_hidden_layers=2).save_pretrained(tmp_path)
    tiny_tokenizer(tmp_path, 323)
    settings = tmp_path / "tokenizer_config.json"
    written = json.loads(settings.read_text())
    settings.write_text(json.dumps({**written, "tokenizer_class": "TokenizersBackend"}))
    transformers5.for_both_versions(tmp_path)
    assert json.loads(settings.read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["rope_theta"] == document["rope_parameters"]["rope_theta"] == 7e4
    assert transformers5.rope_theta(AutoConfig.from_pretrained(tmp_path)) == 7e4
    alone = {k: v for k, v in document.items() if k != "rope_parameters"}
    (tmp_path / "config.json").write_text(json.dumps(alone))
    assert transformers5.rope_theta(AutoConfig.from_pretrained(tmp_path)) == 7e4


def test_a_tokenizer_that_version_5_wrote(tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path, 323)
    expected = transformers5.load_tokenizer(tmp_path)("água <s>").input_ids
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for name in ("added_tokens_decoder", "extra_special_tokens"):
        written.pop(name, None)
    written |= {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "extra_special_tokens": ["<pad>"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(written))
    (tmp_path / "special_tokens_map.json").unlink(missing_ok=True)
    loaded = transformers5.load_tokenizer(tmp_path, padding_side="left")
    assert loaded("água <s>").input_ids == expected
    assert loaded.eos_token == "</s>" and loaded.padding_side == "left"


@pytest.fixture
def login_node(tmp_path: Path) -> dict[str, str]:
    """Environment with nvcc, ninja and a Transformer Engine that stand for real ones."""
    for path, text in {
        "cuda/bin/nvcc": "#!/bin/sh\necho 'Cuda compilation tools, release 12.8, V12.8.93'\n",
        "bin/ninja": "#!/bin/sh\necho 1.13.0\n",
        "te/transformer_engine/__init__.py": "__version__ = '2.9.0'\n",
        "te/transformer_engine/pytorch/__init__.py": "raise OSError('libcuda.so.1: cannot open shared object file')\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    keep = {k: v for k, v in os.environ.items() if k not in ("TORCH_CUDA_ARCH_LIST", "TORCH_EXTENSIONS_DIR")}
    return {
        **keep,
        "CUDA_HOME": str(tmp_path / "cuda"),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "te"), str(ROOT), str(ROOT / "kernels"), *_inherited()]),
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions"),
    }


def _inherited() -> list[str]:
    return [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]


def _on(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, str(HERE / "login_node.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=400)
    return done.stdout if done.returncode == 0 else done.stderr


def test_a_login_node_stops_megatron_bare(login_node: dict[str, str]) -> None:
    """Else the test below shows nothing."""
    without = {k: v.partition(":")[2] if k == "PYTHONPATH" else v for k, v in login_node.items()}
    assert "IndexError: list index out of range" in _on(without)


@pytest.mark.parametrize("first", ["train", "data"])
def test_a_login_node_imports_what_a_command_needs(login_node: dict[str, str], first: str) -> None:
    said = _on(login_node, first)
    assert said.rstrip().endswith("prepared"), said[-3000:]
