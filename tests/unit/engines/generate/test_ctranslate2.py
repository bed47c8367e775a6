"""Generator ``ctranslate2``: the text of transformers' own implementation, or a refusal."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.compat.transformers5 import read_config
from sdrrl_nemo.data.engines.base import CUT, GENERATORS, fingerprint_of
from sdrrl_nemo.data.engines.generate.ctranslate2 import CTranslate2Generator
from sdrrl_nemo.data.engines.generate.hf import HfGenerator
from sdrrl_nemo.data.engines.loops import repeats_itself
from sdrrl_nemo.data.text.conversation import assistant, user
from tests.launch import ROOT
from tests.tiny_families import family_model
from tests.unit.engines.generate.given_up import check_given_up

QUESTIONS = [
    "What is 7 times 6?",
    "Say\n\nhello.",
    "Why?",
    "Tell me how the sea got its salt, and begin with rain.",
]
SMOLLM2 = ROOT / "work" / "models" / "SmolLM2-135M-Instruct"
SERVED = ("llama2", "llama-linear", "llama-biased", "qwen2.5", "qwen3-biased", "mistral")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests: each folder is converted once."""
    return tmp_path_factory.mktemp("ctranslate2")


@pytest.fixture(scope="module")
def make(cache: Path) -> Callable[..., CTranslate2Generator]:
    """The engine on one thread, unfinished answers kept."""

    def made(folder: Path, **options: object) -> CTranslate2Generator:
        options = {"cache": str(cache), "intra_threads": 1, "unfinished": "keep", "max_new_tokens": 24} | options
        return CTranslate2Generator(str(folder), **options)  # type: ignore[arg-type]

    return made


def transformers_says(engine: CTranslate2Generator, questions: list[str], limit: int) -> list[tuple[str, bool]]:
    """(text, finished) by transformers alone, one prompt of the engine at a time."""
    folder, ends = engine._folder, sorted(engine._chat.end_token_ids)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, config=read_config(folder), dtype=torch.float32).eval()
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends[0], do_sample=False)
    out = []
    for ids in engine._chat.prompts([[user(q)] for q in questions]):
        assert isinstance(ids, list)
        made = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=limit)
        new = made[0, len(ids) :].tolist()
        out.append((tokenizer.decode(new, skip_special_tokens=True).strip(), new[-1] in ends))
    return out


@pytest.mark.parametrize("untidy", [False, True])
@pytest.mark.parametrize("name", SERVED)
def test_the_text_is_that_of_transformers(
    name: str, untidy: bool, tmp_path: Path, make: Callable[..., CTranslate2Generator]
) -> None:
    folder = tmp_path / name.replace(".", "_")
    folder.mkdir()
    family_model(folder, name, SMOLLM2, untidy)
    engine = make(folder, batch_size=3)
    questions = ["Why?", "So", "A"] if name == "mistral" else QUESTIONS  # a window of 64 tokens leaves room for no more
    expected = transformers_says(engine, questions, 24)
    assert [(a.text, a.finished) for a in engine.answer(questions)] == expected


@pytest.mark.parametrize(
    ("name", "why"),
    [("llama3.1", "another model"), ("llama3.2", "another model"), ("qwen2.5-yarn", "cannot convert it")],
)
def test_what_the_converter_does_not_know_is_refused(
    name: str, why: str, tmp_path: Path, make: Callable[..., CTranslate2Generator]
) -> None:
    folder = family_model(tmp_path, name, SMOLLM2)
    with pytest.raises(SdrrlError, match=rf"{why}.*use transformers \(generator 'hf'\)"):
        make(folder).generate(["Why?"])
    about = read_json(folder / "config.json")
    write_json(folder / "config.json", {**about, "model_type": "gemma2"})
    with pytest.raises(SdrrlError, match="is a 'gemma2' model, and llama, mistral, qwen2, qwen3 are served"):
        make(folder)


def test_every_end_token_ends_an_answer(
    tiny_model: Path, tmp_path: Path, make: Callable[..., CTranslate2Generator]
) -> None:
    """A token that the model says in the middle of its answer, named by generation_config.json alone."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    engine = make(folder)
    whole = engine.answer(QUESTIONS)
    assert [(a.finished, a.reason, a.tokens) for a in whole] == [(False, CUT, 24)] * 4
    [prompt] = engine._chat.prompts([[user(QUESTIONS[0])]])
    [[made]] = engine._decoder.generate([[prompt]], 24, [0])  # type: ignore[list-item]
    write_json(folder / "generation_config.json", {"eos_token_id": [made[2]]})
    engine = make(folder)
    answers = engine.answer(QUESTIONS)
    assert engine._chat.end_token_ids == {made[2], 2}
    expected = transformers_says(engine, QUESTIONS, 24)
    assert [a.finished for a in answers] == [finished for _, finished in expected]
    assert answers[0].finished
    assert answers[0].tokens < 3
    assert make(folder, unfinished="drop").generate(QUESTIONS)[0] == answers[0].text


def test_neither_batch_nor_order_changes_an_answer(tiny_model: Path, make: Callable[..., CTranslate2Generator]) -> None:
    questions = [f"{'word ' * (n * 7 % 11)}number {n}?" for n in range(9)]
    one = make(tiny_model, batch_size=1).generate(questions)
    assert make(tiny_model, batch_size=4).generate(questions[::-1]) == one[::-1]
    assert make(tiny_model, batch_size=4, inter_threads=2).generate(questions) == one
    several = [user("Why?"), assistant("So."), user("And how?")]
    engine = make(tiny_model)
    assert engine.converse([several, [user("Why?")]]) == [engine.converse([several])[0], *engine.generate(["Why?"])]
    assert engine.generate(["Why?", "word " * 400])[1] == ""


def test_an_answer_that_repeats_itself_is_given_up(tiny_model: Path, make: Callable[..., CTranslate2Generator]) -> None:
    """Random models loop soon; what stands before the loop is the same as without."""
    whole = make(tiny_model, max_new_tokens=200).answer(QUESTIONS)
    stopped = make(tiny_model, max_new_tokens=200, stop_loops=3, unfinished="drop")
    answers = stopped.answer(QUESTIONS)
    check_given_up(answers, whole, 200)
    assert stopped.generate(QUESTIONS) == [a.text if a.finished else "" for a in answers]


def test_a_penalty_for_what_the_answer_has_said_already(
    tiny_model: Path, make: Callable[..., CTranslate2Generator]
) -> None:
    """CTRL's rule written out, one token at a time: tokens of the question count only once the answer has said them."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    engine = make(tiny_model, repetition_penalty=1.3)
    expected = []
    for prompt in engine._chat.prompts([[user(q)] for q in QUESTIONS]):
        assert isinstance(prompt, list)
        said: list[int] = []
        while len(said) < 24 and not {*said} & engine._chat.end_token_ids:
            scores = model(torch.tensor([prompt + said])).logits[0, -1]
            for token in {*said}:
                scores[token] = scores[token] / 1.3 if scores[token] > 0 else scores[token] * 1.3
            said.append(int(scores.argmax()))
        expected.append(engine._read(said))
    assert engine.answer(QUESTIONS) == expected
    assert expected != make(tiny_model).answer(QUESTIONS)
    hf = HfGenerator(str(tiny_model), max_new_tokens=24, device="cpu", unfinished="keep", repetition_penalty=1.3)
    assert hf.answer(QUESTIONS) == expected


def test_repetition_of_token_ids() -> None:
    passage = list(range(20))
    assert repeats_itself([99, *passage * 3], 3)
    assert not repeats_itself([99, *passage * 3, 98], 3)
    assert not repeats_itself([99, *passage * 2], 3)
    assert repeats_itself([7] * 48, 3)
    assert not repeats_itself([7] * 47, 3)  # a short run is no loop: a ruler of dashes, "ha ha ha"


def test_a_folder_is_converted_once_for_its_content(
    tiny_model: Path, tmp_path: Path, make: Callable[..., CTranslate2Generator]
) -> None:
    options = {"cache": str(tmp_path / "cache")}
    first = make(tiny_model, **options)
    answers = first.generate(QUESTIONS)
    (folder,) = [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
    made = (folder / "model.bin").stat().st_mtime_ns
    copy = pickle.loads(pickle.dumps(first))
    assert copy.identity == first.identity
    assert copy.generate(QUESTIONS) == answers
    assert (folder / "model.bin").stat().st_mtime_ns == made
    other = Path(shutil.copytree(tiny_model, tmp_path / tiny_model.name))
    assert fingerprint_of(make(other, **options)) == fingerprint_of(first)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert fingerprint_of(make(other, **options)) != fingerprint_of(first)
    make(other, **options).generate(["Why?"])
    assert len([p for p in (tmp_path / "cache").iterdir() if p.is_dir()]) == 2


def test_identity_follows_what_can_change_an_answer(
    tiny_model: Path, make: Callable[..., CTranslate2Generator]
) -> None:
    plain = make(tiny_model).identity
    assert make(tiny_model, intra_threads=2, inter_threads=2, device="cpu").identity == plain
    changes = {"compute_type": "int8", "beams": 2, "stop_loops": 4, "max_new_tokens": 5, "unfinished": "drop"}
    assert make(tiny_model, repetition_penalty=1).identity == plain
    changes |= {"repetition_penalty": 1.05}
    assert len({plain, *(make(tiny_model, **{k: v}).identity for k, v in changes.items())}) == 1 + len(changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute_type": "float23"}, "compute_type 'float23' is unknown; did you mean 'float32'"),
        ({"unfinished": "dropp"}, "unfinished 'dropp' is unknown; did you mean 'drop'"),
        ({"stop_loops": 1}, r"stop_loops is 1; 0 \(never\) or a number from 2 on"),
        ({"beams": 0}, "beams >= 1 is needed"),
        ({"beams": 2, "stop_loops": 3}, "beams > 1 goes with stop_loops 0"),
        ({"intra_threads": -1}, "intra_threads >= 0"),
        ({"max_new_tokens": 0}, "max_new_tokens >= 1"),
        ({"repetition_penalty": 0.9}, "repetition_penalty is 0.9; a number from 1"),
        ({"repetition_penalty": "strong"}, "repetition_penalty is strong; a number from 1"),
    ],
)
def test_bad_options_are_one_sentence(tiny_model: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(SdrrlError, match=rf"^generator 'ctranslate2': .*{message}"):
        GENERATORS.create("ctranslate2", model=str(tiny_model), **options)


@pytest.mark.skipif(not (SMOLLM2 / "model.safetensors").is_file(), reason="the base model is not here")
def test_sixteen_answers_of_the_base_model(make: Callable[..., CTranslate2Generator]) -> None:
    lines = (ROOT / "data" / "instructions_en.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["instruction"] for line in lines[:160:10]]
    engine = make(SMOLLM2, max_new_tokens=12, batch_size=8)
    expected = transformers_says(engine, questions, 12)
    assert [(a.text, a.finished) for a in engine.answer(questions)] == expected
