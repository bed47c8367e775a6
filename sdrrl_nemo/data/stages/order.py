"""All samples in their final order, and which of them go to the validation set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.seeding import derive_seed, named_random
from sdrrl_nemo.data.conversations import history
from sdrrl_nemo.data.execution.external_sort import external_sort
from sdrrl_nemo.data.execution.stage_runner import Outcome, StreamStage
from sdrrl_nemo.data.rows import OrderedRow, RejectRow, SampleRow


def for_validation(seed: int, fraction: float, source_key: str) -> bool:
    """Whether a question's or sentence pair's samples go to the validation set (``packing.validation_fraction``)."""
    return named_random(seed, "validation", source_key).random() < fraction


def require_rows(rows: Mapping[str, int], validation: Mapping[str, int] | None = None) -> None:
    """SdrrlError when a subset of Eq. 6 came out empty: its term 1/|D_d| has no value."""
    for subset, count in rows.items():
        if count == 0:
            raise SdrrlError(
                f"subset {subset} has no sample left, so Eq. 6 has no value; look at the rejects under "
                "output_dir/stages and relax quality.tau or the filters"
            )
    for subset, count in (validation or {}).items():
        if count == 0:
            raise SdrrlError(
                f"packing.validation_fraction: subset {subset} has no sample in the validation set, so Eq. 6 has no "
                "value there; raise the fraction"
            )


class Order(StreamStage[SampleRow, OrderedRow]):
    """All samples in their final order: by a seeded hash of their key, which mixes the subsets. Drops exact repeats.

    The order is that of the keys, so repeats lie side by side and the first one of the input comes first. Sorted on
    disk: memory holds ``memory_rows`` samples.
    """

    name = "order"
    version = 2
    part = 2048
    """Samples in a file of the result."""

    def __init__(self, seed: int, memory_rows: int = 100_000) -> None:
        self.seed, self.memory_rows = seed, memory_rows

    def settings(self) -> Any:
        return [self.seed, self.part]

    def stream(self, rows: Iterator[SampleRow], workspace: Path) -> Iterator[Outcome[OrderedRow]]:
        ranked = external_sort(map(_keyed, rows), self._rank, workspace, self.memory_rows)
        previous = ""
        while part := list(islice(ranked, self.part)):
            kept: list[OrderedRow] = []
            rejects: list[RejectRow] = []
            for row in part:
                if row["key"] == previous:
                    reason = f"{row['subset']}: duplicate sample"
                    rejects.append({"key": previous, "reason": reason, "question": row["question"]})
                else:
                    kept.append(row)
                previous = row["key"]
            yield Outcome(kept, len(part), len(kept), rejects)

    def _rank(self, row: OrderedRow) -> tuple[int, str]:
        return derive_seed(self.seed, "order", row["key"]), row["key"]


def _keyed(row: SampleRow) -> OrderedRow:
    before = history(row)
    parts = (row["subset"], row["question"], row["answer"], *([before] if before else []))
    return {"key": content_key(*parts), **row}
