"""The tests' own tokenizer keeps the habits of real ones that it is there for (tests/tiny_tokenizer.py)."""

from __future__ import annotations

from pathlib import Path

from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.data.text.token_ids import token_ids
from sdrrl_nemo.data.text.tokenizer import load_tokenizer, prompt_texts, tokenize
from tests.tiny import tiny_model
from tests.tiny_tokenizer import OTHER_SCRIPTS, ROWS, SPECIAL, TEXT_END, TOKENS, TURN_END, save_tokenizer


def test_its_special_tokens_are_as_untidy_as_real_ones(tiny_tokenizer: Path) -> None:
    tokenizer = load_tokenizer(tiny_tokenizer)
    assert len(tokenizer) == TOKENS
    assert tokenizer.eos_token == TEXT_END != TURN_END
    assert tokenizer.pad_token is None and tokenizer.bos_token is None
    [prompt] = prompt_texts(tokenizer, ["Oi"])
    assert TURN_END in prompt and TEXT_END not in prompt and prompt.startswith("<|im_start|>system\n")
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL))
    assert ids == list(range(TOKENS - len(SPECIAL), TOKENS))


def test_any_text_comes_back_from_tokens(tiny_tokenizer: Path) -> None:
    tokenizer = load_tokenizer(tiny_tokenizer)
    texts = [*OTHER_SCRIPTS, "A informação de 2024, não é?", " \n\t", "🙂", f"not{TURN_END}one word"]
    for text, ids in zip(texts, token_ids(tokenizer, texts), strict=True):
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        assert max(ids) < TOKENS
    digits = token_ids(tokenizer, ["2024"])[0]
    assert len(digits) == 4
    ((tokens, prompt),) = tokenize(tokenizer, ["Why?"], ["Because."])
    assert tokens[-1] == tokenizer.convert_tokens_to_ids(TURN_END) != tokenizer.eos_token_id
    assert tokens[:prompt] == token_ids(tokenizer, prompt_texts(tokenizer, ["Why?"]))[0]


def test_it_is_the_same_every_time(tiny_tokenizer: Path, tmp_path: Path) -> None:
    again = save_tokenizer(tmp_path)
    assert (again / "tokenizer.json").read_bytes() == (tiny_tokenizer / "tokenizer.json").read_bytes()


def test_a_tiny_model_has_more_rows_than_tokens(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", layers=1)
    assert read_json(model / "config.json")["vocab_size"] == ROWS > TOKENS
    assert all(ROWS % size for size in range(2, 33))
    ends = read_json(model / "generation_config.json")["eos_token_id"]
    assert len(ends) == 2 and read_json(model / "config.json")["eos_token_id"] in ends
