"""One fingerprint for one tokenizer under every version of transformers; another one for whatever changes ids."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.compat.transformers5 import load_tokenizer
from sdrrl_nemo.data.text.tokenizer import tokenizer_sha256
from tests.unit.data.text.tokenizers_of_families import QWEN, llama_like, qwen_like

# The same under transformers 4.57 and 5 (tokenizers 0.22 and 0.23), under Python 3.11 to 3.13.
EXPECTED = {
    "qwen": "19d45f2cc40e478b",
    "llama": "e9d606d64c7030bf",
    "smollm2": "5fb6938d16d31678",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    path = tmp_path_factory.mktemp("tokenizers")
    return {"qwen": qwen_like(path / "qwen"), "llama": llama_like(path / "llama")}


@pytest.mark.parametrize("name", ["qwen", "llama"])
def test_the_fingerprint_is_the_same_everywhere(folders: dict[str, Path], name: str) -> None:
    assert tokenizer_sha256(load_tokenizer(folders[name]))[:16] == EXPECTED[name]


def test_the_real_tokenizer_has_one_too(smollm2: Path) -> None:
    assert tokenizer_sha256(load_tokenizer(smollm2))[:16] == EXPECTED["smollm2"]


def test_saving_and_loading_keeps_it(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("qwen", "llama"):
        tokenizer = load_tokenizer(folders[name])
        tokenizer(["a", "b c"], padding=name == "qwen", truncation=True, max_length=2)
        tokenizer.save_pretrained(tmp_path / name)
        shutil.copy(folders[name] / "config.json", tmp_path / name)
        assert tokenizer_sha256(load_tokenizer(tmp_path / name))[:16] == EXPECTED[name]


def test_transformers_own_loader_gives_qwen_the_same(folders: dict[str, Path]) -> None:
    """Version 5 builds this family's tokenizer anew from vocabulary and merges."""
    tokenizer = AutoTokenizer.from_pretrained(str(folders["qwen"]))
    assert tokenizer_sha256(tokenizer)[:16] == EXPECTED["qwen"]


Change = Callable[[dict[str, Any]], Any]


def _before(document: dict[str, Any], step: dict[str, Any]) -> None:
    document["normalizer"] = {"type": "Sequence", "normalizers": [step, document["normalizer"]]}


def _digits(document: dict[str, Any]) -> None:
    document["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Digits", "individual_digits": False})


def _pattern(new: str) -> Change:
    return lambda d: d["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=new)


def _swap_merges(document: dict[str, Any]) -> None:
    merges = document["model"]["merges"]
    merges[10], merges[11] = merges[11], merges[10]


QWEN_CHANGES: dict[str, Change] = {
    "two merges in another order": _swap_merges,
    "a merge fewer": lambda d: d["model"]["merges"].pop(),
    "no normaliser": lambda d: d.update(normalizer=None),
    "compatibility normalised": lambda d: d.update(normalizer={"type": "NFKC"}),
    "decomposed": lambda d: d.update(normalizer={"type": "NFD"}),
    "lower case": lambda d: _before(d, {"type": "Lowercase"}),
    "accents off": lambda d: _before(d, {"type": "StripAccents"}),
    "stripped": lambda d: _before(d, {"type": "Strip", "strip_left": False, "strip_right": True}),
    "numbers in threes": _pattern(QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")),
    "contractions in lower case alone": _pattern(QWEN.replace("(?i:'s", "(?:'s")),
    "a space alone before a mark": _pattern(QWEN.replace(" ?[^", "[^")),
    "marks without their line's end": _pattern(QWEN.replace(r"[\r\n]*|\s*", r"|\s*")),
    "digits apart from letters": _digits,
    "a space in front": lambda d: d["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
    "an added token eats the space before it": lambda d: d["added_tokens"][-1].update(lstrip=True),
    "an added token as a whole word": lambda d: d["added_tokens"][-1].update(single_word=True),
    "a token is special": lambda d: d["added_tokens"][-1].update(special=True),
}


@pytest.mark.parametrize("what", QWEN_CHANGES)
def test_a_change_of_ids_changes_it(folders: dict[str, Path], tmp_path: Path, what: str) -> None:
    _expect_other(folders["qwen"], tmp_path, QWEN_CHANGES[what], EXPECTED["qwen"])


LLAMA_CHANGES: dict[str, Change] = {
    "no space in front": lambda d: d["normalizer"]["normalizers"].pop(0),
    "the space is kept": lambda d: d["normalizer"]["normalizers"].pop(1),
    "no bytes for unknown letters": lambda d: d["model"].update(byte_fallback=False),
    "words apart": lambda d: d.update(
        pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": True}
    ),
    "two merges in another order": _swap_merges,
}


@pytest.mark.parametrize("what", LLAMA_CHANGES)
def test_a_change_of_ids_changes_it_for_sentencepiece(folders: dict[str, Path], tmp_path: Path, what: str) -> None:
    _expect_other(folders["llama"], tmp_path, LLAMA_CHANGES[what], EXPECTED["llama"])


def _expect_other(source: Path, folder: Path, change: Change, plain: str) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    document = read_json(folder / "tokenizer.json")
    change(document)
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    assert tokenizer_sha256(load_tokenizer(folder))[:16] != plain


@pytest.mark.parametrize(
    "settings",
    [
        {"chat_template": "{{ messages }}"},
        {"eos_token": "<|endoftext|>"},
        {"bos_token": "<|im_start|>"},
    ],
)
def test_the_settings_count(folders: dict[str, Path], tmp_path: Path, settings: dict[str, Any]) -> None:
    shutil.copytree(folders["qwen"], tmp_path, dirs_exist_ok=True)
    written = read_json(tmp_path / "tokenizer_config.json")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**written, **settings}), encoding="utf-8")
    assert tokenizer_sha256(load_tokenizer(tmp_path))[:16] != EXPECTED["qwen"]


def test_a_token_put_around_a_text_counts(folders: dict[str, Path], tmp_path: Path) -> None:
    """``<s>`` in front or not: texts without special tokens have the same ids."""
    shutil.copytree(folders["llama"], tmp_path, dirs_exist_ok=True)
    document = read_json(tmp_path / "tokenizer.json")
    document["post_processor"] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": True,
        "use_regex": True,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    written = read_json(tmp_path / "tokenizer_config.json")
    written |= {"add_bos_token": False, "tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(written), encoding="utf-8")
    assert tokenizer_sha256(load_tokenizer(tmp_path))[:16] != EXPECTED["llama"]
