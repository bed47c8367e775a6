from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.data.engines.base import GENERATORS, Answer, fingerprint_of
from sdrrl_nemo.data.engines.generate.answers import settle
from sdrrl_nemo.data.engines.generate.hf import HfGenerator
from sdrrl_nemo.data.engines.generate.in_process import NO_ROOM
from sdrrl_nemo.data.text.conversation import assistant, user

QUESTIONS = ["What is 7 times 6?", "Say\n\nhello.", "Why?"]


def test_greedy_answers_equal_step_by_step_argmax(tiny_model: Path) -> None:
    engine = HfGenerator(str(tiny_model), max_new_tokens=12)
    answers = engine.answer(QUESTIONS)
    for question, answer in zip(QUESTIONS, answers, strict=True):
        prompt = [{"role": "user", "content": question}]
        ids = engine._tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        found: list[int] = []
        with torch.no_grad():
            while len(found) < 12:
                token = int(engine._model(ids).logits[0, -1].argmax())
                if token == engine._tokenizer.eos_token_id:
                    break
                found.append(token)
                ids = torch.cat([ids, torch.tensor([[token]])], 1)
        assert answer == engine._read(found + [engine._tokenizer.eos_token_id] * (len(found) < 12))


def test_end_token_finishes_an_answer(tiny_model: Path) -> None:
    engine = HfGenerator(str(tiny_model), max_new_tokens=2, unfinished="keep")
    a, end = engine._tokenizer("ab").input_ids, engine._tokenizer.eos_token_id
    assert engine._read([*a, end, end]) == Answer("ab", True, 2)
    assert engine._read(a) == Answer("ab", False, 2)


def test_every_end_token_ends_an_answer(tiny_model: Path, tmp_path: Path) -> None:
    """The template's end of turn, the tokenizer's end of text, and what generation_config.json names."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    settings = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", {**settings, "eos_token": "<|endoftext|>"})
    engine = HfGenerator(str(folder), max_new_tokens=4, unfinished="keep")
    a, b = engine._tokenizer("a").input_ids, engine._tokenizer("b").input_ids
    write_json(folder / "generation_config.json", {"eos_token_id": [0, *b]})
    for end, named in ((0, False), (2, False), (b[0], True)):
        fresh = HfGenerator(str(folder), max_new_tokens=4, unfinished="keep")
        assert fresh._read([*a, end, *a, 0]) == Answer("a", True, 1), named
        assert end in fresh._generation_config().eos_token_id


def test_text_is_returned_as_it_was_generated(tiny_model: Path, tmp_path: Path) -> None:
    """Llama 3's folder asks for spaces before marks to be taken away."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    settings = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", {**settings, "clean_up_tokenization_spaces": True})
    engine = HfGenerator(str(folder), max_new_tokens=4, unfinished="keep")
    text = "Quoi ? Non ! L 'eau , do n't ."
    assert engine._read(engine._tokenizer(text).input_ids).text == text


def test_conversations(tiny_model: Path) -> None:
    """Earlier turns are part of the prompt; one turn is the same as the question alone."""
    engine = HfGenerator(str(tiny_model), max_new_tokens=6, unfinished="keep")
    several = [user("Why?"), assistant("So."), user("And how?")]
    assert engine.converse([[user(q)] for q in QUESTIONS]) == engine.generate(QUESTIONS)
    ids = engine._tokenizer.apply_chat_template(
        several, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    made = engine._model.generate(
        **ids, max_new_tokens=6, do_sample=False, eos_token_id=sorted(engine._chat.end_token_ids)
    )
    [answer] = engine.converse([several])
    assert answer == engine._read(made[0, ids["input_ids"].shape[1] :].tolist()).text


def test_a_question_too_long_costs_its_own_row_alone(tiny_model: Path) -> None:
    engine = HfGenerator(str(tiny_model), max_new_tokens=8, unfinished="keep")
    answers = engine.generate(["Why?", "word " * 400])
    assert answers == [*engine.generate(["Why?"]), ""]
    assert engine.answer(["Why?", "word " * 400])[1].reason == NO_ROOM


def test_unfinished_answers_are_dropped_unless_asked_for(tiny_model: Path) -> None:
    engine = HfGenerator(str(tiny_model), max_new_tokens=2)
    answers = engine.answer(QUESTIONS)
    assert all(a.text and a.finished is False for a in answers)
    assert engine.generate(QUESTIONS) == ["", "", ""]


@pytest.mark.parametrize(("mode", "text"), [("keep", "One. Tw"), ("trim", "One."), ("drop", "")])
def test_unfinished_answers(mode: str, text: str) -> None:
    assert settle(Answer("One. Tw", False, 9), mode) == text
    assert settle(Answer("One. Tw", True, 9), mode) == "One. Tw"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_batches_by_length_follow_from_the_questions_and_order_is_restored(
    tiny_model: Path, temperature: float
) -> None:
    questions = [f"{'word ' * (n * 7 % 11)}number {n}?" for n in range(9)]
    engine = HfGenerator(str(tiny_model), max_new_tokens=6, batch_size=4, temperature=temperature, unfinished="keep")
    forth = dict(zip(questions, engine.generate(questions), strict=True))
    back = dict(zip(questions[::-1], engine.generate(questions[::-1]), strict=True))
    assert forth == back
    if temperature == 0:
        assert list(forth.values()) == [engine.generate([q])[0] for q in questions]


def test_the_folders_own_generation_config_does_not_steer(tiny_model: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "other")
    (other / "generation_config.json").write_text(
        json.dumps({"repetition_penalty": 9.0, "min_new_tokens": 7, "transformers_version": "4.57.0"})
    )
    plain = HfGenerator(str(tiny_model), max_new_tokens=8, unfinished="keep").generate(QUESTIONS)
    assert HfGenerator(str(other), max_new_tokens=8, unfinished="keep").generate(QUESTIONS) == plain


def test_pickled_engines_leave_the_model_behind(tiny_model: Path) -> None:
    engine = HfGenerator(str(tiny_model), max_new_tokens=4, unfinished="keep")
    answers, identity = engine.generate(QUESTIONS), engine.identity
    stored = pickle.dumps(engine)
    assert len(stored) < 2000
    copy = pickle.loads(stored)
    assert copy.identity == identity
    assert copy.generate(QUESTIONS) == answers


def test_sampling_depends_on_seed_and_batch_alone(tiny_model: Path) -> None:
    def run(seed: int) -> list[str]:
        return HfGenerator(str(tiny_model), max_new_tokens=8, temperature=1.0, seed=seed, unfinished="keep").generate(
            QUESTIONS
        )

    first = run(0)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert run(0) == first
    assert torch.equal(before, torch.random.get_rng_state())
    assert run(1) != first


def test_identity_follows_weights_and_options(tiny_model: Path, tmp_path: Path) -> None:
    engine = HfGenerator(str(tiny_model))
    assert engine.identity == HfGenerator(str(tiny_model), device="cpu").identity
    assert engine.identity != HfGenerator(str(tiny_model), max_new_tokens=5).identity
    other = tmp_path / tiny_model.name
    other.mkdir()
    for file in tiny_model.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    assert fingerprint_of(HfGenerator(str(other))) == fingerprint_of(engine)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert fingerprint_of(HfGenerator(str(other))) != fingerprint_of(engine)
    assert engine.licence == "unstated"


def test_bad_options_are_one_sentence(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match="holds no model"):
        GENERATORS.create("hf", model=str(tmp_path))
    with pytest.raises(SdrrlError, match="dtype 'bfloat' is unknown; did you mean 'bfloat16'"):
        HfGenerator(str(tiny_model), dtype="bfloat")
    with pytest.raises(SdrrlError, match="exceeds the model's 256"):
        HfGenerator(str(tiny_model), max_new_tokens=250).generate(QUESTIONS)
    with pytest.raises(SdrrlError, match=r"stop_loops is 1; 0 \(never\) or a number from 2 on"):
        HfGenerator(str(tiny_model), stop_loops=1)
    with pytest.raises(SdrrlError, match=r"stop_loops goes with temperature 0, and it is 0\.5"):
        HfGenerator(str(tiny_model), stop_loops=4, temperature=0.5)
    assert HfGenerator(str(tiny_model)).generate([]) == []
