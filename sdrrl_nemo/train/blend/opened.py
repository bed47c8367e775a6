"""The sets of a blend, opened, and what follows from them: the order of rows, lambda_d, how often each row comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json_object
from sdrrl_nemo.data.packing.blend_files import manifest_of
from sdrrl_nemo.data.packing.packed import PackedDataset
from sdrrl_nemo.data.packing.several import SeveralSets, check_together, common_names
from sdrrl_nemo.train.batches import Schedule
from sdrrl_nemo.train.blend.chosen import ChosenSet, held_out_of, objective, shares
from sdrrl_nemo.train.blend.quotas import BlendSchedule
from sdrrl_nemo.train.config import DataSettings


@dataclass(frozen=True)
class Blend:
    """The sets of a run. ``held_out``: the held-out sets that belong to them, under the same subset names."""

    data: DataSettings
    chosen: list[ChosenSet]
    names: list[tuple[str, ...]]
    """The subsets of each set, by their names here."""
    train: SeveralSets
    held_out: SeveralSets | None

    def weights(self) -> npt.NDArray[np.float64]:
        """lambda_d, float64 [subsets]."""
        return np.asarray(objective(self.data, self.train.subset_names, self.chosen, self.names))

    def schedule(self, global_batch_size: int, seed: int) -> Schedule:
        """The order of rows. One set whose rows all come once an epoch has the order it has without a blend."""
        rows = self.train.rows_of_sets(self.data.packed)
        by_share = shares(self.data, self.chosen, rows)
        if len(rows) == 1 and not by_share:
            return Schedule(rows[0], global_batch_size, seed)
        size = self.data.epoch_rows or sum(rows)
        return BlendSchedule(size, global_batch_size, seed, tuple(rows), by_share)

    def steps_a_draw(self, schedule: Schedule, steps: int) -> npt.NDArray[np.float64] | None:
        """Steps that come on one draw of each sample in a run of ``steps`` steps, float64 [samples]; None where every
        sample comes once an epoch. SdrrlError where a set is never drawn."""
        if not isinstance(schedule, BlendSchedule):
            return None
        for one, quota in zip(self.chosen, schedule.quotas, strict=True):
            if quota == 0:
                raise SdrrlError(
                    f"data.blend: an epoch of {schedule.rows} rows draws none of {one.prefix}; raise its sampling or "
                    "data.epoch_rows"
                )
        return self.by_sample(schedule.steps_a_draw(steps))

    def by_sample(self, by_row: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What holds for each row, for each of its samples."""
        return np.repeat(by_row, np.diff(self.train.document_indices)) if self.data.packed else by_row


def open_blend(data: DataSettings, chosen: list[ChosenSet], open_set: Callable[[Path], PackedDataset]) -> Blend:
    """Open the sets and those held out for them; ``open_set`` opens one by its prefix.

    SdrrlError where the sets were packed differently, or a held-out set has a subset that is not trained.
    """
    prefixes = [one.prefix for one in chosen]
    held = held_out_of(chosen, data.validation) if data.validation else []
    check_together({prefix: read_json_object(manifest_of(prefix)) for prefix in [*prefixes, *held]})
    sets = [open_set(prefix) for prefix in [*prefixes, *held]]
    names = common_names([s.manifest for s in sets])
    train = SeveralSets(sets[: len(chosen)], names[: len(chosen)])
    held_out = None
    if held:
        _require_known(held, names[len(chosen) :], train.subset_names)
        held_out = SeveralSets(sets[len(chosen) :], names[len(chosen) :], train.subset_names)
    return Blend(data, chosen, names[: len(chosen)], train, held_out)


def _require_known(held: Sequence[Path], names: Sequence[tuple[str, ...]], known: Sequence[str]) -> None:
    for prefix, own in zip(held, names, strict=True):
        for name in own:
            if name not in known:
                raise SdrrlError(
                    f"data.validation: {prefix} has the subset {name}, which no set of data.blend has; blend sets of "
                    "the same preprocessing"
                )
