"""Sorting on disk equals sorting in memory."""

from __future__ import annotations

import resource
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.execution import external_sort as module
from sdrrl_nemo.data.execution.external_sort import external_sort
from sdrrl_nemo.data.stages.order import Order


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(st.integers(0, 9), max_size=200), memory=st.integers(1, 50))
def test_equals_a_stable_sort(keys: list[int], memory: int) -> None:
    rows = [{"key": k, "place": i} for i, k in enumerate(keys)]
    with TemporaryDirectory() as folder:
        found = list(external_sort(iter(rows), lambda r: r["key"], Path(folder), memory))
        assert not list(Path(folder).iterdir())
    assert found == sorted(rows, key=lambda r: r["key"])


def test_more_runs_than_files_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAN_IN", 3)
    values = [(i * 7919) % 1000 for i in range(1000)]
    assert list(external_sort(values, lambda v: v % 10, tmp_path, 10)) == sorted(values, key=lambda v: v % 10)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SdrrlError, match="run-000000: no room to write"):
            list(external_sort((f"{i:09d}" for i in range(2000)), str, tmp_path, 500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_order_is_the_same_whatever_fits_in_memory(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"subset": "LL", "question": f"q{i % 70}", "answer": "a", "nth": i} for i in range(100)
    ]
    results = []
    for memory in (7, 1000):
        folder = tmp_path / str(memory)
        folder.mkdir()
        outcomes = list(Order(3, memory_rows=memory).stream(iter(rows), folder))
        results.append(([r for o in outcomes for r in o.rows], [r for o in outcomes for r in o.rejects]))
    assert results[0] == results[1]
    assert sorted(r["nth"] for r in results[0][0]) == list(range(70))  # the first of each
    assert len(results[0][1]) == 30
