"""What one model is measured by, item by item."""

from __future__ import annotations

from dataclasses import dataclass

HELD_OUT, BENCHMARK = "Held-out data", "Benchmarks"
FILE = "measures.json"
"""What a measured run leaves in its folder of scores."""


@dataclass(frozen=True)
class Measure:
    """One measure of one model.

    ``items`` [n, k]: numbers of each item for the ``kind`` of sdrrl_nemo/study/aggregate.py; ``keys`` [n] name the
    items, the same for every model. ``better``: ``higher`` or ``lower``. ``language``: the one it is about.
    ``published``: (benchmark, metric, direction) in the paper's tables, None where they have no such figure.
    """

    id: str
    group: str
    title: str
    language: str
    unit: str
    better: str
    kind: str
    keys: list[str]
    items: list[list[float]]
    published: tuple[str, str, str] | None = None
