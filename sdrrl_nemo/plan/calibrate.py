"""How the efficiencies of plan/speed.py were chosen: the best of a grid on the published runs marked ``chosen_on``.

Ampere: five runs decide ``matrix``, ``memory`` and ``links``. Hopper: two runs in bf16 decide ``matrix`` and
``attention``, then the same two in fp8 ``fp8``; the rest is Ampere's. Everything else in published.yaml is held out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from sdrrl_nemo.cost.gpus import gpu
from sdrrl_nemo.plan.published import PublishedRun, published_runs
from sdrrl_nemo.plan.speed import EFFICIENCY, Efficiency

MATRIX = tuple(x / 100 for x in range(50, 90, 5))
MEMORY = (0.6, 0.7, 0.8, 0.9)
LINKS = (0.6, 0.7, 0.8)
FP8 = tuple(x / 100 for x in range(50, 90, 5))
ATTENTION = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)


def grid(generation: str) -> Iterator[Efficiency]:
    """Candidates of a generation."""
    ampere = EFFICIENCY["ampere"]
    if generation == "ampere":
        for matrix, memory, links in itertools.product(MATRIX, MEMORY, LINKS):
            yield replace(ampere, matrix=matrix, memory=memory, links=links)
    else:
        for matrix, attention in itertools.product(MATRIX, ATTENTION):
            yield replace(ampere, matrix=matrix, attention=attention)


def runs_of(generation: str, chosen_on: bool, fp8: bool = False) -> list[PublishedRun]:
    """Published runs on GPUs of a generation, in bf16 or in fp8."""
    found = [r for r in published_runs() if gpu(r.gpu).generation == generation and r.build.fp8 == fp8]
    return [r for r in found if r.chosen_on == chosen_on]


def error(runs: Iterable[PublishedRun], efficiency: Efficiency) -> float:
    """Sum of squared logarithms of predicted over published seconds."""
    return sum(math.log(r.predict(efficiency).total / r.seconds) ** 2 for r in runs)


def best(generation: str) -> Efficiency:
    """The candidate with the smallest error on the runs that choose; the first of equals."""
    runs = runs_of(generation, chosen_on=True)
    found = min(grid(generation), key=lambda e: error(runs, e))
    if not (in_fp8 := runs_of(generation, chosen_on=True, fp8=True)):
        return found
    return min((replace(found, fp8=x) for x in FP8), key=lambda e: error(in_fp8, e))
