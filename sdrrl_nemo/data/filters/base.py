"""What a filter is: it looks at one source text and its translation and says why it rejects them, or None."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.registry import Registry
from sdrrl_nemo.data.text.segmentation import protected_spans
from sdrrl_nemo.data.text.segmentation.invisible import visible


@dataclass(frozen=True)
class TextPair:
    """A text and its translation; languages by ISO 639-3. A text judged alone is its own translation.

    Code, formulas, addresses and the like are of no language and are not translated (data/text/segmentation), so a
    filter asks for the part that it can judge: words by ``source_prose`` and ``target_prose``, which have none of them;
    marks and numbers by ``source_rest`` and ``target_rest``, which lack only what stands in both texts unchanged.
    """

    source: str
    target: str
    source_language: str
    target_language: str

    @property
    def alone(self) -> bool:
        """Whether the text is judged by itself, such as an answer of the model."""
        return self.source == self.target and self.source_language == self.target_language

    @cached_property
    def source_prose(self) -> str:
        """The source without what is not translated."""
        return prose(self.source)

    @cached_property
    def target_prose(self) -> str:
        """The translation without what is not translated."""
        return prose(self.target)

    @cached_property
    def source_rest(self) -> str:
        """The source without the protected spans that the translation has too."""
        return self._rests[0]

    @cached_property
    def target_rest(self) -> str:
        """The translation without the protected spans that the source has too."""
        return self._rests[1]

    @cached_property
    def _rests(self) -> tuple[str, str]:
        spans = [protected_spans(text) for text in (self.source, self.target)]
        ours, theirs = (
            Counter(text[a:b] for a, b in own) for text, own in zip((self.source, self.target), spans, strict=True)
        )
        shared = ours & theirs
        return visible(without(self.source, spans[0], shared)), visible(without(self.target, spans[1], shared))


def prose(text: str) -> str:
    """A text's words: a space for each protected span, without characters that no reader sees."""
    return visible(without(text, protected_spans(text)))


def without(text: str, spans: Sequence[tuple[int, int]], only: Counter[str] | None = None) -> str:
    """The text with a space for each of the spans [start, end), as often as ``only`` counts it; None: for all."""
    left = None if only is None else only.copy()
    out, at = [], 0
    for start, end in spans:
        if left is not None:
            if not left[text[start:end]]:
                continue
            left[text[start:end]] -= 1
        out += [text[at:start], " "]
        at = end
    return "".join(out) + text[at:]


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
