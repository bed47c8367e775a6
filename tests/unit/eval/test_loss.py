"""Held-out loss: equal to a sample-by-sample float64 computation, whatever the batch."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.token_ids import token_ids
from sdrrl_nemo.data.text.tokenizer import prompt_texts
from sdrrl_nemo.eval.backends.answer_loss import SampleLoss, batches_by_length, mean_loss, perplexity, sample_losses
from sdrrl_nemo.eval.backends.decoding import greedy
from sdrrl_nemo.eval.backends.interface import Encoded, check_lengths, encode_samples
from sdrrl_nemo.eval.backends.last_states import last_states
from sdrrl_nemo.eval.backends.prefix import common_prefix
from sdrrl_nemo.eval.model_folder import ModelFolder, load_model, open_model_folder

TEXTS = [
    ("Hi", "Hello."),
    ("What is rain, and where does it come from?", "Water that falls from clouds."),
    ("O que é?", "Água, com acentos: ç ã é — e travessões, bastante mais longa que as outras respostas."),
    ("Yes or no?", "No"),
    ("A longer question " * 6, "ok"),
]


@pytest.fixture(scope="module")
def folder(base_folder: Path) -> ModelFolder:
    return open_model_folder("base", base_folder)


@pytest.fixture(scope="module")
def model(folder: ModelFolder) -> object:
    return load_model(folder, torch.device("cpu"))


def ignore(_: float) -> None:
    """No progress bar."""


def reference(model, tokens: list[int], prompt: int) -> float:
    """One sample in float64, the whole sequence's logits, written out as in Eq. 6."""
    logits = model.double()(input_ids=torch.tensor([tokens])).logits[0]
    model.float()
    terms = [torch.log_softmax(logits[j - 1], -1)[tokens[j]].item() for j in range(prompt, len(tokens))]
    return -math.fsum(terms) / len(terms)


def test_encoding_is_template_answer_and_end(folder):
    sample = encode_samples(folder.tokenizer, ["Hi"], ["Hello."])[0]
    text = folder.tokenizer.decode(sample.tokens)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>"
    assert folder.tokenizer.decode(sample.tokens[sample.prompt_tokens :]) == "Hello.<|im_end|>"


def test_losses_equal_the_reference_in_the_order_given(folder, model):
    samples = encode_samples(folder.tokenizer, *map(list, zip(*TEXTS, strict=True)))
    found = sample_losses(model, samples, 256, ignore)
    for got, sample in zip(found, samples, strict=True):
        assert got.mean == pytest.approx(reference(model, sample.tokens, sample.prompt_tokens), rel=1e-5)
        assert got.answer_tokens == len(sample.tokens) - sample.prompt_tokens


@pytest.mark.parametrize("batch_tokens", [1, 200, 400, 100_000])
def test_batch_size_changes_nothing(folder, model, batch_tokens):
    samples = encode_samples(folder.tokenizer, *map(list, zip(*TEXTS, strict=True)))
    alone = [x.mean for x in sample_losses(model, samples, 1, ignore)]
    together = [x.mean for x in sample_losses(model, samples, batch_tokens, ignore)]
    assert together == pytest.approx(alone, rel=1e-5)


def test_rows_without_a_common_prefix(folder, model):
    """Two rows that differ in their very first token."""
    rows = [Encoded([65, 66, 67, 68], 2), Encoded([70, 71, 72], 1)]
    found = [x.mean for x in sample_losses(model, rows, 100, ignore)]
    assert found == pytest.approx([reference(model, r.tokens, r.prompt_tokens) for r in rows], rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "length"),
    [
        ([], 0),
        ([[1, 2, 3]], 2),
        ([[1, 2, 3], [1, 2, 4]], 2),
        ([[1, 2], [1, 2, 5]], 1),
        ([[1, 9], [2, 9]], 0),
        ([[7]], 0),
    ],
)
def test_common_prefix_leaves_a_token_in_each_row(rows, length):
    assert common_prefix(rows) == length


def test_hidden_states_do_not_depend_on_the_batch(folder, model):
    prompts = token_ids(folder.tokenizer, prompt_texts(folder.tokenizer, [q for q, _ in TEXTS]))
    alone, together = last_states(model, prompts, 1, ignore), last_states(model, prompts, 100_000, ignore)
    assert alone.shape == (5, 32)
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone), rtol=1e-5, atol=1e-5)
    direct = model(input_ids=torch.tensor([prompts[2]]), output_hidden_states=True).hidden_states[-1][0, -1]
    torch.testing.assert_close(torch.tensor(alone[2]), direct.detach(), rtol=1e-5, atol=1e-5)


def test_greedy_answers_equal_one_by_one_argmax(folder, model):
    prompts = token_ids(folder.tokenizer, prompt_texts(folder.tokenizer, [q for q, _ in TEXTS]))
    answers = greedy(model, folder.tokenizer, prompts, [8] * len(prompts), 0, ignore, batch_size=3)
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens = list(prompt)
        for _ in range(8):
            tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
            if tokens[-1] in folder.end_token_ids:
                break
        new = tokens[len(prompt) :]
        finished = new[-1] in folder.end_token_ids
        assert answer["finished"] == finished
        assert answer["tokens"] == len(new) - finished
        assert answer["text"] == folder.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_sampling_defaults_of_the_folder_are_not_used(folder, model):
    assert model.generation_config.do_sample is False
    assert model.generation_config.eos_token_id == folder.end_token_ids


def test_too_long_text_is_named():
    with pytest.raises(SdrrlError, match="600 tokens do not fit into the model's 512 positions"):
        check_lengths([5, 600], 512, "loss.questions")


def test_mean_counts_samples_and_perplexity_counts_tokens():
    losses = [SampleLoss(1.0, 1), SampleLoss(3.0, 3)]
    assert mean_loss(losses) == 2.0
    assert perplexity(losses) == pytest.approx(math.exp(2.5))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_limit(lengths, limit):
    batches = batches_by_length(lengths, limit)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    for b in batches:
        assert len(b) == 1 or len(b) * max(lengths[i] for i in b) <= limit
