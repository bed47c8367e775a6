"""Warm-up and automatic learning rate, as they are worked out from the data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sdrrl_nemo.train.config import OptimSettings
from sdrrl_nemo.train.schedule import automatic_lr, learning_rate, resolve


def batches(answer_tokens: int = 0, steps_per_epoch: int = 1) -> Any:
    halves = np.asarray([answer_tokens // 2, answer_tokens - answer_tokens // 2])
    return SimpleNamespace(
        dataset=SimpleNamespace(answer_tokens=halves),
        a_step=lambda values: float(values.sum()) / steps_per_epoch,
        step_weight=lambda: 6.0,
    )


@pytest.mark.parametrize(("fraction", "total", "steps"), [(0.03, 1000, 30), (0.03, 10, 1), (0.5, 7, 4), (0.0, 1000, 5)])
def test_warmup_fraction_is_of_all_steps_and_rounded_up(fraction: float, total: int, steps: int) -> None:
    found = resolve(OptimSettings(lr=1e-3, warmup_steps=5, warmup_fraction=fraction), batches(), total)
    assert (found.warmup_steps, found.warmup_fraction) == (steps, 0.0)  # resolved once: a resume must not do it again
    assert found.clip_grad == 6.0
    assert resolve(found, batches(), 2 * total) == found


def test_automatic_rate_is_of_the_answer_tokens_of_a_step() -> None:
    found = resolve(OptimSettings(lr="auto", auto_lr_base=3e-4), batches(9000, 3), 100)
    assert found.lr == automatic_lr(3e-4, 3000)
    assert resolve(OptimSettings(lr=2e-5), batches(), 100).lr == 2e-5


def test_warmup_of_every_step_ends_at_the_peak() -> None:
    o = OptimSettings(lr=1.0, min_lr=0.1, warmup_steps=4, schedule="cosine")
    assert [learning_rate(o, s, 4) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_nothing_falls_below_the_minimum_after_the_last_step() -> None:
    o = OptimSettings(lr=1.0, min_lr=0.1, schedule="linear")
    assert learning_rate(o, 30, 20) == pytest.approx(0.1)
