"""Chat template, loss mask, fingerprint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, ByT5Tokenizer

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.data.stages.tokenize import Tokenize
from sdrrl_nemo.data.text.token_ids import token_ids
from sdrrl_nemo.data.text.tokenizer import load_chat, load_tokenizer, prompt_texts, tokenize, tokenizer_sha256
from tests.unit.data.tiny_run import make_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(path)
    return path


def test_prompt_answer_and_end(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    [(tokens, prompt)] = tokenize(tokenizer, ["What is água?"], ["The answer."])
    assert tokenizer.decode(tokens[:prompt]) == "<|start|>user\nWhat is água?<|end|>\n<|start|>assistant\n"
    assert tokenizer.decode(tokens[prompt:]) == "The answer.<|end|>"
    assert tokens[-1] == tokenizer.eos_token_id


def test_batch_is_the_same_as_one_by_one_and_never_cut(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.model_max_length = 16
    questions, answers = ["a", "a much longer question " * 20], ["b " * 200, "c"]
    alone = [tokenize(tokenizer, [q], [a])[0] for q, a in zip(questions, answers, strict=True)]
    assert tokenize(tokenizer, questions, answers) == alone
    assert len(alone[0][0]) > 200


def test_ids_and_prompts_are_those_of_transformers(folder: Path) -> None:
    """The short way to the ids, on a tokenizer that an earlier call left padding and truncation in."""
    tokenizer = load_tokenizer(folder)
    texts = ["água ", " a b", "", "<|start|>user <|end|>", "猫が好き ខ្ញុំ 😀\n\n\t x", "long " * 300]
    tokenizer(texts, padding=True, truncation=True, max_length=4)
    found = token_ids(tokenizer, texts)
    plain = tokenizer(texts, add_special_tokens=False, padding=False, truncation=False)["input_ids"]
    assert found == plain
    single = [
        tokenizer.apply_chat_template([{"role": "user", "content": t}], add_generation_prompt=True, tokenize=False)
        for t in texts
    ]
    assert prompt_texts(tokenizer, texts) == single
    assert prompt_texts(tokenizer, []) == token_ids(tokenizer, []) == []


def test_too_long_is_dropped_with_its_reason(folder: Path) -> None:
    stage = Tokenize(load_chat(folder), "x", 60, 8)
    rows = [{"key": "1", "subset": "LL", "question": "q", "answer": "a"}]
    rows.append({"key": "2", "subset": "TT", "question": "q", "answer": "long " * 100})
    outcome = stage.process(rows)
    assert [r["key"] for r in outcome.rows] == ["1"]
    assert outcome.facts()["dropped"] == {"TT: longer than seq_length": 1}


def test_fingerprint_survives_use_and_a_round_trip(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder)
    before = tokenizer_sha256(tokenizer)
    tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=3)
    assert tokenizer_sha256(tokenizer) == before
    tokenizer.save_pretrained(str(tmp_path))
    assert tokenizer_sha256(AutoTokenizer.from_pretrained(str(tmp_path))) == before


def test_fingerprint_changes_with_template_vocabulary_and_special_tokens(folder: Path, tmp_path: Path) -> None:
    seen = {tokenizer_sha256(load_tokenizer(folder))}
    other = make_tokenizer(tmp_path / "a", template="{{ messages[0]['content'] }}")
    seen.add(tokenizer_sha256(other))
    grown = load_tokenizer(folder)
    grown.add_tokens(["novo"])
    seen.add(tokenizer_sha256(grown))
    special = load_tokenizer(folder)
    special.eos_token = "<|start|>"
    seen.add(tokenizer_sha256(special))
    assert len(seen) == 4


def _saved(folder: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """Fingerprint of the tokenizer after ``change`` of its tokenizer.json."""
    shutil.copytree(folder, to)
    document = read_json(to / "tokenizer.json")
    change(document)
    write_json(to / "tokenizer.json", document)
    return tokenizer_sha256(load_tokenizer(to))


def test_fingerprint_changes_with_merges_normaliser_and_pre_tokenizer(folder: Path, tmp_path: Path) -> None:
    """The same words in another order of merges, or cut in another way, are other ids."""

    def swap(document: dict[str, Any]) -> None:
        merges = document["model"]["merges"]
        merges[0], merges[1] = merges[1], merges[0]

    cut_at_e = {"type": "Split", "pattern": {"String": "e"}, "behavior": "Isolated", "invert": False}
    changes: list[Callable[[dict[str, Any]], None]] = [
        lambda _: None,
        swap,
        lambda d: d.update(normalizer={"type": "NFC"}),
        lambda d: d.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [cut_at_e, d["pre_tokenizer"]]}),
    ]
    seen = [_saved(folder, tmp_path / str(i), change) for i, change in enumerate(changes)]
    assert seen[0] == tokenizer_sha256(load_tokenizer(folder))
    assert len(set(seen)) == len(changes)


def test_a_tokenizer_without_the_rust_backend() -> None:
    """ByT5's is Python alone: a byte is its id less the three special tokens."""
    tokenizer = ByT5Tokenizer()
    texts = ["água", "", "b c"]
    assert token_ids(tokenizer, texts) == [[byte + 3 for byte in text.encode()] for text in texts]
    assert tokenizer_sha256(tokenizer) == tokenizer_sha256(ByT5Tokenizer())
    assert tokenizer_sha256(tokenizer) != tokenizer_sha256(ByT5Tokenizer(extra_ids=5))


def test_special_tokens_in_a_text_are_cut_where_the_tokenizer_says_so(folder: Path) -> None:
    whole, cut = load_tokenizer(folder), load_tokenizer(folder)
    cut.split_special_tokens = True
    assert token_ids(whole, ["<|end|>"]) == [[whole.eos_token_id]]
    assert len(token_ids(cut, ["<|end|>"])[0]) > 1


def test_nothing_to_tokenize(folder: Path) -> None:
    assert tokenize(load_tokenizer(folder), [], []) == []


def test_a_sample_as_long_as_the_pack_stays(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    row = {"key": "1", "subset": "LL", "question": "q", "answer": "a"}
    [(tokens, prompt)] = tokenize(tokenizer, ["q"], ["a"])
    chat = load_chat(folder)
    kept = Tokenize(chat, "x", len(tokens), 8).process([row])
    assert [(r["tokens"], r["spans"]) for r in kept.rows] == [(tokens, [[prompt, len(tokens)]])]
    dropped = Tokenize(chat, "x", len(tokens) - 1, 8).process([row])
    assert (dropped.rows, dropped.rejects[0]["detail"]) == ([], f"{len(tokens)} tokens")


def test_a_stage_is_not_reused_after_the_tokenizer_or_the_length_changed(folder: Path) -> None:
    """What the runner hashes: shard size is no part of the result."""
    chat = load_chat(folder)
    settings = Tokenize(chat, "a" * 64, 512, 8).settings()
    assert settings == Tokenize(chat, "a" * 64, 512, 16).settings()
    assert Tokenize(chat, "a" * 64, 256, 8).settings() != settings
    assert Tokenize(chat, "b" * 64, 512, 8).settings() != settings


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_folder_that_lacks_a_file(name: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(SdrrlError, match=f"no {name} in this folder"):
        load_tokenizer(tmp_path / "model")


def test_a_broken_tokenizer_and_one_without_an_end(folder: Path, tmp_path: Path) -> None:
    for name, text, message in (
        ("tokenizer_config.json", "[", r"tokenizer_config\.json: not valid JSON"),
        ("tokenizer.json", "[", "the tokenizer cannot be loaded"),
        ("tokenizer.json", "{}", "the tokenizer cannot be loaded"),
    ):
        broken = shutil.copytree(folder, tmp_path / "broken", dirs_exist_ok=True)
        (broken / name).write_text(text)
        with pytest.raises(SdrrlError, match=message):
            load_tokenizer(broken)
    endless = load_tokenizer(folder)
    endless.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    endless.save_pretrained(str(tmp_path / "endless"))
    with pytest.raises(SdrrlError, match="no token that could end generation"):
        load_tokenizer(tmp_path / "endless")


def test_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match=r"no such folder; make the base model with tools/import_gguf\.py"):
        load_tokenizer(tmp_path / "absent")
    bare = load_tokenizer(folder)
    bare.chat_template = None
    bare.save_pretrained(str(tmp_path / "bare"))
    with pytest.raises(SdrrlError, match="no chat template"):
        load_tokenizer(tmp_path / "bare")
