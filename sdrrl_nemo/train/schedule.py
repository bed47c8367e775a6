"""Learning rate: of a step, and the one computed from batch size and data; the norm at which gradients are clipped."""

from __future__ import annotations

import dataclasses
import math

from sdrrl_nemo.train.batches import MicroBatches
from sdrrl_nemo.train.config import OptimSettings

LLAMA_BATCH_TOKENS = 4_000_000
"""Tokens of a step of LLaMA's pre-training, to which ``auto_lr_base`` belongs (Touvron et al. 2023, table 2)."""


def learning_rate(o: OptimSettings, step: int, total_steps: int) -> float:
    """Learning rate of step ``step`` (from 0) of ``total_steps``: linear warm-up, then the schedule down to min_lr."""
    peak = float(o.lr)
    if step < o.warmup_steps:
        return peak * (step + 1) / o.warmup_steps
    done = (step - o.warmup_steps) / max(1, total_steps - o.warmup_steps)
    falling = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[o.schedule]
    return o.min_lr + (peak - o.min_lr) * max(0.0, falling)


def automatic_lr(base: float, answer_tokens_per_step: float) -> float:
    """base * sqrt(answer tokens of a step / 4e6).

    The rule of OpenChat (Wang et al. 2023, the "automatically calculated learning rate" of the SDRRL paper) and of
    LLaMA-Factory's ``cal_lr.py``: LLaMA's rate, scaled by the square root of the supervised tokens of a step.
    """
    return base * math.sqrt(answer_tokens_per_step / LLAMA_BATCH_TOKENS)


def resolve(o: OptimSettings, batches: MicroBatches, total_steps: int) -> OptimSettings:
    """The settings with ``lr: auto``, ``clip_grad: auto`` and ``warmup_fraction`` turned into numbers."""
    lr, warmup, clip = o.lr, o.warmup_steps, o.clip_grad
    if lr == "auto":
        lr = automatic_lr(o.auto_lr_base, batches.a_step(batches.dataset.answer_tokens))
    if o.warmup_fraction:
        warmup = math.ceil(o.warmup_fraction * total_steps)
    if clip == "auto":
        # The customary 1.0 belongs to a mean over tokens, whose weights add up to 1. A loss whose weights add up to W
        # is W times such a mean, and so are its gradients.
        clip = batches.step_weight()
    return dataclasses.replace(o, lr=float(lr), warmup_steps=warmup, warmup_fraction=0.0, clip_grad=float(clip))
