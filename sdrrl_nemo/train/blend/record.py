"""What a run's folder, its log and a dry run say of a blend: the sets, what they count, how often they are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdrrl_nemo.common.fileio import atomic_write, write_json
from sdrrl_nemo.data.packing.blend_files import BLEND_JSON, BLEND_TXT, megatron_line
from sdrrl_nemo.data.packing.packed import OWN_HASH
from sdrrl_nemo.train.batches import Schedule
from sdrrl_nemo.train.blend.opened import Blend
from sdrrl_nemo.train.blend.quotas import BlendSchedule

ELSEWHERE = ("prefix", "pairs")
"""What of a set's entry may differ when a run goes on: where it lies. Its files' hashes say what it is."""


def record_of(blend: Blend, schedule: Schedule, steps: int) -> dict[str, Any]:
    """The blend as ``blend.json`` of the run's folder has it. ``quota``: rows of the set in an epoch; ``drawn``:
    samples of the subset that the run of ``steps`` steps draws at least once."""
    d, train = blend.data, blend.train
    have = np.asarray(train.rows_of_sets(d.packed))
    quotas, by_share, draws = have, have / have.sum(), np.ones(int(have.sum()), np.int64)
    if isinstance(schedule, BlendSchedule):
        quotas, draws = schedule.quotas, schedule.draws(steps)
        by_share = np.asarray(schedule.shares) if schedule.shares else by_share
    drawn = blend.by_sample(draws) > 0
    seen = np.bincount(train.subset[drawn], minlength=len(train.subset_names))
    sets = zip(blend.chosen, train.sets, blend.names, have.tolist(), by_share.tolist(), quotas.tolist(), strict=True)
    subsets = zip(
        train.subset_names, train.subset_sizes().tolist(), seen.tolist(), blend.weights().tolist(), strict=True
    )
    return {
        "sampling": d.sampling,
        **({"temperature": d.temperature} if d.sampling == "temperature" else {}),
        "rows": "packs" if d.packed else "samples",
        "epoch_rows": schedule.rows,
        "steps_per_epoch": schedule.steps_per_epoch,
        "steps": steps,
        "never_drawn": int((~drawn).sum()),
        "sets": [
            {
                "prefix": str(one.prefix),
                "manifest_sha256": opened.manifest.get(OWN_HASH),
                "pairs": opened.manifest.get("pairs"),
                "subsets": list(names),
                "weight": one.weight,
                "rows": rows,
                "share": share,
                "quota": quota,
            }
            for one, opened, names, rows, share, quota in sets
        ],
        "subsets": {name: {"samples": size, "drawn": got, "objective": weight} for name, size, got, weight in subsets},
    }


def identity_of_blend(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of it decides the result of a run, so that a resumed run must have the same."""
    sets = [{k: v for k, v in s.items() if k not in ELSEWHERE} for s in record["sets"]]
    return {**{k: v for k, v in record.items() if k not in ("steps", "steps_per_epoch")}, "sets": sets}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """``blend.json``, and ``blend.txt`` with each set's share in the form of Megatron-LM's ``--data-path``."""
    write_json(folder / BLEND_JSON, record)
    with atomic_write(folder / BLEND_TXT) as f:
        f.write(megatron_line((s["share"], s["prefix"]) for s in record["sets"]) + "\n")


def lines(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, value) in reading order, for a dry run and the log."""
    total, rows = sum(s["rows"] for s in record["sets"]), record["rows"]
    how = f"temperature {record['temperature']:g}" if "temperature" in record else record["sampling"]
    yield "blend", f"{len(record['sets'])} sets, {how}, an epoch draws {record['epoch_rows']:,} of {total:,} {rows}"
    for s in record["sets"]:
        often = f"{s['quota']:,} draws an epoch ({s['quota'] / s['rows']:.2f} times)"
        weight = f", weight {s['weight']:g}" if s["weight"] != 1 else ""
        yield "  set", f"{s['prefix']}: {s['rows']:,} {rows}, {often}{weight}"
    if record["never_drawn"]:
        yield "never drawn", f"{never_drawn(record)}"


def never_drawn(record: Mapping[str, Any]) -> str:
    """One sentence on the samples that the run never sees."""
    samples = sum(s["samples"] for s in record["subsets"].values())
    missing = [name for name, s in record["subsets"].items() if not s["drawn"]]
    lost = f"; of {', '.join(missing)} not one, so these add nothing to the loss" if missing else ""
    return (
        f"{record['never_drawn']:,} of {samples:,} samples in {record['steps']:,} steps{lost}; the mean of a subset is "
        "taken over its samples that are drawn"
    )
