"""One progress bar with an ETA: live on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T] | None, description: str, total: int | None = None, **kwargs: Any) -> tqdm[T]:
    """tqdm that refreshes every 0.2 s on a terminal and every 15 s elsewhere, so that logs stay short."""
    live = sys.stderr.isatty()
    options: dict[str, Any] = {"mininterval": 0.2 if live else 15.0, "dynamic_ncols": live, "ascii": not live}
    options.update(kwargs)
    return tqdm(items, desc=description, total=total, **options)


def close_bars() -> None:
    """End the line of every open bar, so that what is printed next starts on a line of its own."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()
