"""What the suites share: languages in order, data on disk or fetched, the first N items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sdrrl_nemo.eval.benchmark_config import BenchmarkConfig
from sdrrl_nemo.eval.readers.hub import fetch
from sdrrl_nemo.eval.readers.official_files import READERS, NotCovered
from sdrrl_nemo.eval.task import BenchmarkTask

T = TypeVar("T")
Entry = BenchmarkTask | tuple[str, str]


def measured(config: BenchmarkConfig) -> list[str]:
    """The source language, then the targets: the paper's tables have both halves."""
    return [config.source_language, *config.languages]


def read(config: BenchmarkConfig, name: str, lang: str, *options: Any) -> Any:
    """The data set's items; fetched first when the configuration allows it and they are not there."""
    if config.download:
        fetch(name, lang, config.data_dir, config.hub)
    return READERS[name](config.data_dir, lang, *options)


def first(items: Sequence[T], config: BenchmarkConfig, name: str) -> list[T]:
    """The first ``limits[name]`` items; all without a limit."""
    limit = config.limits.get(name, 0)
    return list(items[:limit] if limit else items)


def or_reason(name: str, make: Callable[[], BenchmarkTask]) -> Entry:
    """The task, or its name with the reason why the data set cannot serve it."""
    try:
        return make()
    except NotCovered as e:
        return name, str(e)
