"""Chat template, loss mask, fingerprint."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.tokenization import Tokenize, load_tokenizer, prompt_texts, token_ids, tokenize, tokenizer_sha256
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
    stage = Tokenize(load_tokenizer(folder), "x", 60, 8)
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


def test_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match=r"no such folder; make the base model with tools/import_gguf\.py"):
        load_tokenizer(tmp_path / "absent")
    bare = load_tokenizer(folder)
    bare.chat_template = None
    bare.save_pretrained(str(tmp_path / "bare"))
    with pytest.raises(SdrrlError, match="no chat template"):
        load_tokenizer(tmp_path / "bare")
