"""What a filter is: it looks at one source text and its translation and says why it rejects them, or None."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.registry import Registry


@dataclass(frozen=True)
class TextPair:
    """A text and its translation; languages by ISO 639-3. A text judged alone is its own translation."""

    source: str
    target: str
    source_language: str
    target_language: str


class Filter(ABC):
    """One reason to reject a translation."""

    version: int = 1
    """Goes up whenever the same thresholds may reject other texts; part of the stage fingerprint."""

    @abstractmethod
    def reject(self, pair: TextPair) -> str | None:
        """The measured figure and its bound, as words, or None when the pair is fine."""


FILTERS: Registry[Filter] = Registry("filter")


def make_filters(chosen: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Filter]:
    """Filters in the order of the configuration; SdrrlError for an unknown name or option, or one named twice."""
    filters: dict[str, Filter] = {}
    for name, options in chosen:
        if name in filters:
            raise SdrrlError(f"filters: '{name}' is named twice")
        try:
            filters[name] = FILTERS.create(name, **options)
        except SdrrlError as e:
            raise SdrrlError(f"filters: {name}: {e}") from None
    return filters


def require_bounds(minimum: float, maximum: float, least: float = 0.0) -> None:
    """SdrrlError unless least <= minimum <= maximum."""
    if not least <= minimum <= maximum:
        raise SdrrlError(f"minimum {minimum} and maximum {maximum} must be in order and at least {least:g}")


def require_share(name: str, value: float) -> None:
    """SdrrlError unless ``value`` is a share, 0 to 1."""
    if not 0.0 <= value <= 1.0:
        raise SdrrlError(f"{name} {value} is not between 0 and 1")
