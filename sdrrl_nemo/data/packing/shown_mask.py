"""The loss mask of one sample of each kind as text, for the data card: which words carry loss and which do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdrrl_nemo.data.packing.packed import TokenizedSample


class ShownMasks:
    """Watches samples go by and keeps the shortest of each kind; equally short ones by their key.

    ``decode`` gives the text of token ids, control tokens included.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._kept: dict[str, tuple[int, str, TokenizedSample]] = {}

    def watch(self, pairs: Iterable[tuple[Mapping[str, Any], TokenizedSample]]) -> Iterator[TokenizedSample]:
        """The samples as they are, each seen with its row."""
        for row, sample in pairs:
            kind, rank = kind_of(row), (len(sample.tokens), row["key"])
            if kind not in self._kept or rank < self._kept[kind][:2]:
                self._kept[kind] = (*rank, sample)
            yield sample

    def table(self) -> list[dict[str, Any]]:
        """``{"kind", "key", "subset", "pieces": [{"loss", "tokens", "text"}, ...]}`` for each kind: the runs of tokens
        with loss and without, in order."""
        return [
            {"kind": kind, "key": key, "subset": sample.subset, "pieces": self._pieces(sample)}
            for kind, (_, key, sample) in sorted(self._kept.items())
        ]

    def _pieces(self, sample: TokenizedSample) -> list[dict[str, Any]]:
        marked = zip(sample.tokens.tolist(), sample.loss_mask.tolist(), strict=True)
        runs = [(bool(loss), [token for token, _ in run]) for loss, run in groupby(marked, key=lambda pair: pair[1])]
        return [{"loss": loss, "tokens": len(ids), "text": self._decode(ids)} for loss, ids in runs]


def kind_of(row: Mapping[str, Any]) -> str:
    """One exchange or several, with a system turn or without."""
    kind = "several exchanges" if row.get("earlier") else "one exchange"
    return f"{kind}, system turn" if "system" in row else kind
