"""Our greedy decoding beside transformers' ``generate``, which computes one question at a time: the same tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessorList,
    MistralConfig,
    MistralForCausalLM,
    RepetitionPenaltyLogitsProcessor,
)

from sdrrl_nemo.data.engines import greedy_decoder
from sdrrl_nemo.data.engines.generate.hf import HfGenerator
from sdrrl_nemo.data.engines.greedy_decoder import decode
from tests.unit.engines.generate.given_up import check_given_up

LIMIT = 24
ENDS = [*range(60, 110)]
"""Many, so that rows end at many steps."""


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    """Heads that share keys and values: four query heads in two groups or the like, and attention by torch's kernel."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    assert model.config.num_attention_heads > model.config.num_key_value_heads
    assert model.config._attn_implementation == "sdpa"
    return model


def windowed(model: Any) -> Any:
    """A model whose layers forget: keys and values of a window do not grow in place."""
    torch.manual_seed(3)
    sizes = {k: getattr(model.config, k) for k in ("vocab_size", "hidden_size", "intermediate_size")}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 2}
    return MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=16, initializer_range=0.2)).eval()


def questions(count: int = 14) -> list[list[int]]:
    rng = np.random.default_rng(11)
    found: list[list[int]] = [rng.integers(3, 250, rng.integers(4, 60)).tolist() for _ in range(count)]
    return sorted(found, key=len, reverse=True)


def theirs(model: Any, question: list[int], limit: int, ends: list[int], penalty: float) -> list[int]:
    settings = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=ends, pad_token_id=ends[0])
    processor = RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=len(question))
    ids = torch.tensor([question])
    before, model.generation_config = model.generation_config, GenerationConfig()
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=settings,
        logits_processor=LogitsProcessorList([processor] if penalty != 1 else []),
    )
    model.generation_config = before
    tokens: list[int] = made[0, len(question) :].tolist()
    return tokens


@pytest.mark.parametrize("read_tokens", [1, 150, 100_000])
@pytest.mark.parametrize(("window", "penalty"), [(False, 1.0), (False, 1.3), (True, 1.3)])
def test_tokens_are_those_of_transformers(
    model: Any, window: bool, penalty: float, read_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the questions are grouped for reading, and although rows leave at many steps."""
    monkeypatch.setattr(greedy_decoder, "READ_TOKENS", read_tokens)
    monkeypatch.setattr(greedy_decoder, "ROOM", 3)  # keys and values move often
    used = windowed(model) if window else model
    asked = questions()
    made = decode(used, asked, LIMIT, ENDS, ENDS[0], penalty)
    assert [row.tokens for row in made] == [theirs(used, q, LIMIT, ENDS, penalty) for q in asked]
    assert len({len(row.tokens) for row in made}) >= 4


def test_without_an_end_token_rows_have_the_limit(model: Any) -> None:
    made = decode(model, questions(3), 5, [], 0)
    assert [len(row.tokens) for row in made] == [5] * 3
    assert decode(model, [], 5, [], 0) == []


def test_the_gap_is_that_of_the_logits_that_chose(model: Any) -> None:
    """The two best of each step as one pass over the whole text has them, those said already lowered."""
    question, penalty = questions(1)[0], 1.3
    [row] = decode(model, [question], LIMIT, [], 0, penalty)
    with torch.inference_mode():
        logits = model(torch.tensor([question + row.tokens])).logits[0, len(question) - 1 : -1]
    gaps = []
    for step in range(LIMIT):
        scores = logits[step].clone()
        for token in {*row.tokens[:step]}:
            scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
        two = scores.topk(2).values
        gaps.append(float(two[0] - two[1]))
    assert row.gap == pytest.approx(min(gaps), abs=1e-5)


def test_a_row_is_stopped_and_the_others_go_on(model: Any) -> None:
    asked = questions(4)
    whole = [row.tokens for row in decode(model, asked, LIMIT, [], 0)]
    unwanted = whole[1][6]
    stopped = [row.tokens for row in decode(model, asked, LIMIT, [], 0, stop=lambda ids: ids[-1] == unwanted)]
    for part, all_of_it in zip(stopped, whole, strict=True):
        first = all_of_it.index(unwanted) + 1 if unwanted in all_of_it else LIMIT
        assert part == all_of_it[:first]
    assert len(stopped[1]) <= 7


@pytest.mark.parametrize("mask", ["none", "bool", "float"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_of_one_token(mask: str, dtype: torch.dtype) -> None:
    """Against torch's own in float64; keys and values are views with room behind them, as the decoder keeps them."""
    torch.manual_seed(5)
    rows, heads, groups, tokens, size = 5, 12, 3, 17, 16
    query = torch.randn(rows, heads, 1, size, dtype=dtype)
    key, value = (torch.randn(rows, groups, tokens + 9, size, dtype=dtype)[:, :, :tokens] for _ in range(2))
    seen = torch.rand(rows, 1, 1, tokens) < 0.7
    seen[..., -1] = True
    masks = {"none": None, "bool": seen, "float": torch.where(seen, 0.0, torch.finfo(torch.float32).min)}
    found = greedy_decoder._attention(query, key, value, masks[mask], 0.2)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.double(),
        *(x.double().repeat_interleave(heads // groups, 1) for x in (key, value)),
        attn_mask=None if mask == "none" else seen,
        scale=0.2,
    )
    assert found.shape == (rows, 1, heads, size)
    assert found.dtype == dtype
    error = (found.double() - expected.transpose(1, 2)).abs().max()
    assert float(error) < (2e-6 if dtype == torch.float32 else 2e-2)


def test_the_models_own_attention_is_back_afterwards(model: Any) -> None:
    def fail(ids: list[int]) -> bool:
        assert model.config._attn_implementation == greedy_decoder.GROUPED
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        decode(model, questions(2), 3, [], 0, stop=fail)
    assert model.config._attn_implementation == "sdpa"


def test_tensors_with_room_are_not_shared() -> None:
    """A copy of some rows, as a batch makes that lost others, gets a room of its own."""
    held = torch.arange(24.0).reshape(2, 1, 4, 3)
    new = torch.full((2, 1, 1, 3), -1.0)
    first, room = greedy_decoder._appended(held, None, new)
    second, same = greedy_decoder._appended(first, room, new - 1)
    assert same is room
    assert torch.equal(second, torch.cat([held, new, new - 1], 2))
    left, other = greedy_decoder._appended(first[:1].clone(), room, new[:1] - 5)
    assert other is not room
    assert torch.equal(left, torch.cat([held, new, new - 5], 2)[:1])
    assert torch.equal(second, torch.cat([held, new, new - 1], 2))


def test_a_loop_ends_an_answer_of_the_generator(tiny_model: Path) -> None:
    """What stands before the loop is the same as without."""
    asked = ["What is 7 times 6?", "Say\n\nhello.", "Why?", "So"]
    options: dict[str, Any] = {"max_new_tokens": 200, "device": "cpu", "unfinished": "keep"}
    whole = HfGenerator(str(tiny_model), **options).answer(asked)
    engine = HfGenerator(str(tiny_model), stop_loops=3, **options)
    answers = engine.answer(asked)
    check_given_up(answers, whole, 200)
    assert engine.identity != HfGenerator(str(tiny_model), **options).identity
