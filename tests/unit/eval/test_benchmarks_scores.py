"""Neither batch nor order nor sharing changes a score: log-likelihoods and greedy answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, MistralConfig, MistralForCausalLM

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.eval.backends import decoding, likelihood
from sdrrl_nemo.eval.backends.interface import BACKENDS
from sdrrl_nemo.eval.backends.likelihood import choice_log_likelihoods, rows_of
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.evaluation import plan
from sdrrl_nemo.eval.model_folder import ModelFolder, load_model, open_model_folder
from sdrrl_nemo.eval.task import Choose, Generate, Task

ROOT = Path(__file__).resolve().parents[3]
REAL = ROOT / "work" / "models" / "SmolLM2-135M-Instruct"
BATCHES = (1, 700, 3000, 100_000)


def nothing(done: float) -> None:
    """Progress nobody watches."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> ModelFolder:
    """The tiny model with room for long prompts (a token is a byte)."""
    path = tmp_path_factory.mktemp("long") / "model"
    shutil.copytree(base_folder, path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    return open_model_folder("model", path)


@pytest.fixture(scope="module")
def model(folder: ModelFolder) -> Any:
    return load_model(folder, torch.device("cpu"))


def naive(model: Any, context: list[int], choice: list[int]) -> float:
    """One pass over the whole text, every position's logits."""
    ids = torch.tensor([[*context, *choice]])
    with torch.inference_mode():
        logp = model(input_ids=ids).logits[0].double().log_softmax(-1)
    at = range(len(context) - 1, len(context) + len(choice) - 1)
    return float(sum(logp[j, t] for j, t in zip(at, choice, strict=True)))


def questions(seed: int, count: int, shared: int, letters: bool) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Random contexts, pairs of which begin alike, and four choices of one or of several tokens."""
    rng = np.random.default_rng(seed)
    contexts: list[list[int]] = []
    for n in range(count):
        if n % 2 and shared:
            contexts.append([*contexts[-1][:shared], *rng.integers(3, 250, rng.integers(5, 30)).tolist()])
        else:
            contexts.append(rng.integers(3, 250, rng.integers(shared + 5, shared + 60)).tolist())
    choices = [
        [[65 + k] if letters else rng.integers(3, 250, rng.integers(1, 9)).tolist() for k in range(4)] for _ in contexts
    ]
    return contexts, choices


@pytest.mark.parametrize("letters", [True, False])
@pytest.mark.parametrize("shared", [0, 80])
def test_log_likelihoods_equal_one_pass_per_choice(model: Any, letters: bool, shared: int):
    contexts, choices = questions(1, 9, shared, letters)
    expected = [[naive(model, c, k) for k in ks] for c, ks in zip(contexts, choices, strict=True)]
    for batch_tokens in BATCHES:
        found = choice_log_likelihoods(model, contexts, choices, batch_tokens, nothing)
        np.testing.assert_allclose(found, expected, atol=2e-4, rtol=0)


def test_sharing_reads_common_beginnings_once():
    passage = tuple(range(10, 90))
    texts = [(*passage, 1, 2, 3), (*passage, 4), (*passage, 1, 2, 5, 6), (7, 8, 9)]
    rows = rows_of(texts, share=True)
    assert sorted(r.length for r in rows) == [3, 80 + 3 + 1 + 4]
    assert sorted(r.length for r in rows_of(texts, share=False)) == [3, 81, 83, 84]
    assert {t for r in rows for t in r.texts} == set(texts)


def test_a_text_that_begins_another_keeps_a_token_of_its_own(model: Any):
    base = list(range(20, 60))
    contexts, choices = [base, [*base, 9, 8]], [[[9], [8]], [[7], [6]]]
    expected = [[naive(model, c, k) for k in ks] for c, ks in zip(contexts, choices, strict=True)]
    found = choice_log_likelihoods(model, contexts, choices, 10_000, nothing)
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=0)


def test_batch_and_order_change_no_choice(model: Any):
    contexts, choices = questions(2, 30, 40, False)
    reference = choice_log_likelihoods(model, contexts, choices, 1, nothing)
    for seed, batch_tokens in enumerate(BATCHES):
        order = np.random.default_rng(seed).permutation(len(contexts))
        found = choice_log_likelihoods(
            model, [contexts[i] for i in order], [choices[i] for i in order], batch_tokens, nothing
        )
        back = [found[int(np.flatnonzero(order == i)[0])] for i in range(len(contexts))]
        assert np.argmax(back, 1).tolist() == np.argmax(reference, 1).tolist()
        np.testing.assert_allclose(back, reference, atol=2e-4, rtol=0)


def test_close_calls_are_decided_alone(model: Any, monkeypatch: pytest.MonkeyPatch):
    """With every call counted as close, each batch gives the very bits of one question at a time."""
    contexts, choices = questions(3, 8, 0, True)
    monkeypatch.setattr(likelihood, "CLOSE", float("inf"))
    alone = choice_log_likelihoods(model, contexts, choices, 1, nothing)
    assert choice_log_likelihoods(model, contexts, choices, 100_000, nothing) == alone


def test_text_longer_than_the_model_is_refused(model: Any):
    with pytest.raises(SdrrlError, match="do not fit into the model's 4096 positions"):
        choice_log_likelihoods(model, [[5] * 4097], [[[1], [2]]], 100, nothing)


def test_answers_are_those_of_one_prompt_at_a_time(model: Any, folder: ModelFolder):
    rng = np.random.default_rng(4)
    prompts = [rng.integers(3, 250, rng.integers(4, 60)).tolist() for _ in range(12)]
    limits = [12] * 6 + [20] * 6
    reference = decoding.greedy(model, folder.tokenizer, prompts, limits, 1, nothing)
    assert len({r["text"] for r in reference}) > 6
    for seed, batch_tokens in enumerate((200, 100_000)):
        order = np.random.default_rng(seed).permutation(len(prompts)).tolist()
        found = decoding.greedy(
            model, folder.tokenizer, [prompts[i] for i in order], [limits[i] for i in order], batch_tokens, nothing
        )
        assert [found[order.index(i)] for i in range(len(prompts))] == reference


@pytest.mark.parametrize("window", [None, 16])
def test_answers_are_what_transformers_generates(model: Any, folder: ModelFolder, window: int | None):
    """Rows that end early leave the batch; what is left of it is not disturbed, nor where attention has a window."""
    if window:
        sizes = {k: getattr(model.config, k) for k in ("vocab_size", "hidden_size", "intermediate_size")}
        heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 8, "num_hidden_layers": 2}
        torch.manual_seed(3)
        model = MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=window, initializer_range=0.2)).eval()
    ends = list(range(60, 110))  # many, so that rows end at many steps
    settings = GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=60)
    before, model.generation_config = model.generation_config, settings
    rng = np.random.default_rng(11)
    prompts = [rng.integers(3, 250, rng.integers(4, 40)).tolist() for _ in range(10)]
    try:
        found = decoding.greedy(model, folder.tokenizer, prompts, [20] * 10, 100_000, nothing)
        for prompt, answer in zip(prompts, found, strict=True):
            new = model.generate(torch.tensor([prompt]), max_new_tokens=20)[0, len(prompt) :].tolist()
            own = new[:-1] if new[-1] in ends else new
            text = folder.tokenizer.decode(own, skip_special_tokens=True).strip()
            assert answer == {"text": text, "tokens": len(own), "finished": len(own) < 20}
    finally:
        model.generation_config = before
    lengths = [a["tokens"] for a in found]
    assert len(set(lengths)) > 4 and min(lengths) < 5


def test_close_steps_are_decoded_alone(model: Any, folder: ModelFolder, monkeypatch: pytest.MonkeyPatch):
    """A batch whose rounding turned a token is mended by decoding that prompt on its own."""
    prompts = [[5, 6, 7], [8, 9, 10, 11]]
    right = decoding.greedy(model, folder.tokenizer, prompts, [6, 6], 1, nothing)
    real = decoding._decode

    def wrong(model: Any, prompts: list[list[int]], limit: int) -> list[tuple[list[int], float]]:
        found = real(model, prompts, limit)
        if len(prompts) == 1:
            return found
        return [([t + 1 for t in found[0][0]], decoding.CLOSE / 2), *found[1:]]

    monkeypatch.setattr(decoding, "_decode", wrong)
    assert decoding.greedy(model, folder.tokenizer, prompts, [6, 6], 1000, nothing) == right


def test_gap_is_the_distance_of_the_two_best_logits(model: Any):
    [(tokens, gap)] = decoding._decode(model, [[5, 6, 7]], 3)
    ids = torch.tensor([[5, 6, 7, *tokens]])
    with torch.inference_mode():
        two = model(input_ids=ids).logits[0, 2:5].topk(2).values
    assert gap == pytest.approx(float((two[:, 0] - two[:, 1]).min()), abs=1e-5)


@pytest.fixture
def config() -> BenchmarkConfig:
    return BenchmarkConfig(data_dir=str(ROOT / "data" / "benchmarks"), bleu_tokenize="13a", device="cpu")


def tasks_of(config: BenchmarkConfig) -> list[Task]:
    return plan(config)[0]


def test_letters_follow_a_space_where_the_prompt_ends_in_a_colon(folder: ModelFolder, config: BenchmarkConfig):
    backend = BACKENDS.create("transformers", folder=folder, config=config)
    context, choices = backend.encode_choice(Choose("P: x\nAnswer:", (" A", " B"), False))
    decode = folder.tokenizer.decode
    assert [decode(c) for c in choices] == [" A", " B"] and decode(context).endswith("Answer:")


def test_article_is_shortened_to_fit_and_says_so(base_folder: Path, config: BenchmarkConfig):
    backend = BACKENDS.create("transformers", folder=open_model_folder("model", base_folder), config=config)
    text = "one two three " * 60
    ids, cut = backend.fit(Generate(f"Summarize.\n{text}\nNow:", 32, True, text))
    said = backend.folder.tokenizer.decode(ids)
    assert cut and len(ids) + 32 <= 512 < len(ids) + 32 + len("three ")
    assert "Summarize.\none two three" in said and "\nNow:" in said
    whole, cut = backend.fit(Generate("Summarize.\nshort", 32, True, "short"))
    assert not cut and "short" in backend.folder.tokenizer.decode(whole)
    thai = "ก" * 400
    assert len(backend.fit(Generate(thai, 32, True, thai))[0]) + 32 <= 512


@pytest.mark.skipif(not REAL.is_dir(), reason="work/models/SmolLM2-135M-Instruct is not there (make demo makes it)")
def test_real_model_batch_one_against_many(config: BenchmarkConfig, monkeypatch: pytest.MonkeyPatch):
    """SmolLM2 on shipped items: batch 1 in order, and all at once shuffled, give the same choices and answers."""
    monkeypatch.setattr(config, "names", ["belebele", "mkqa"])
    config.limits = {"belebele": 3, "mkqa": 3}
    config.max_new_tokens = {"mkqa": 4}
    found = []
    for batch_tokens in (1, 1500):
        config.batch_tokens = batch_tokens
        backend = BACKENDS.create("transformers", folder=open_model_folder("model", REAL), config=config)
        for task in (t for t in tasks_of(config) if t.name in ("belebele.eng", "mkqa.eng")):
            order = list(range(len(task.requests)))
            if batch_tokens > 1:
                order = order[::-1]
            made = backend.run([task.requests[i] for i in order], nothing)
            found.append([made[order.index(i)] for i in range(len(order))])
    np.testing.assert_allclose(found[0], found[2], atol=2e-4, rtol=0)
    assert np.argmax(found[0], 1).tolist() == np.argmax(found[2], 1).tolist()
    assert found[1] == found[3]


def test_backends_take_only_their_own_options(folder: ModelFolder, config: BenchmarkConfig):
    make: Callable[..., Any] = BACKENDS.create
    with pytest.raises(SdrrlError, match="has no option 'tensor_parallel'"):
        make("transformers", folder=folder, config=config, tensor_parallel=2)
