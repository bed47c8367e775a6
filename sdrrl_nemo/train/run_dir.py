"""The folder of a run: who may write there, where it goes on, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.cli import is_rank_zero
from sdrrl_nemo.common.config import to_yaml
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, read_json, read_jsonl, write_json
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.common.ranks import from_rank_zero
from sdrrl_nemo.common.run_facts import IDENTITY_FILE, clipped_of, clipping_of, identity_of, waited_of, waiting_of
from sdrrl_nemo.data.text.chat_files import RUN_TEMPLATE
from sdrrl_nemo.model.published.weight_files import model_key
from sdrrl_nemo.train.batches import MicroBatches
from sdrrl_nemo.train.blend.record import identity_of_blend, never_drawn, write_record
from sdrrl_nemo.train.callbacks.checkpoint import complete_checkpoints, newest_sound, remove_unfinished
from sdrrl_nemo.train.callbacks.heldout import VALIDATION_FILE, HeldOutLoss
from sdrrl_nemo.train.callbacks.lora_run import lora_identity
from sdrrl_nemo.train.callbacks.metrics import METRICS_FILE, read_metrics
from sdrrl_nemo.train.config import RunConfig
from sdrrl_nemo.train.megatron_options.option_settings import option_identity
from sdrrl_nemo.train.schedule import resolve

FINISHED_FILE = "finished.json"
MUCH_WAITING = 0.05
"""Share of the steps' time from which on a run says at its end that it waited for data."""


def checkpoints_of(config: RunConfig) -> Path:
    """The folder that holds the run's checkpoints."""
    return Path(config.run_dir) / "checkpoints"


def identity_file(config: RunConfig) -> Path:
    """What the run is, as far as it decides the result: a resumed run must be the same."""
    return Path(config.run_dir) / IDENTITY_FILE


def claim(config: RunConfig, batches: MicroBatches, steps: int) -> None:
    """Refuse to resume under another setting; write resolved YAML and provenance beside the results.

    Rank 0 does it; what it refuses is refused on every rank.
    """
    from_rank_zero(lambda: _claim(config, batches, steps))


def _claim(config: RunConfig, batches: MicroBatches, steps: int) -> None:
    run = Path(config.run_dir)
    identity = {
        "data": batches.dataset.manifest["files"],
        "model": model_key(Path(config.model.hf_path)),
        "pad_heads_to": config.model.pad_heads_to,
        "global_batch_size": config.trainer.global_batch_size,
        "packed": config.data.packed,
        "seed": config.seed,
        "precision": config.trainer.precision,
        "steps": steps,
        # kernels differ in speed, not in what they compute
        "loss": {k: v for k, v in vars(config.loss).items() if k != "kernel"},
        "optim": vars(resolve(config.optim, batches, steps)),
        **lora_identity(config),
        **option_identity(config.megatron),
        **_mixture(config, batches),
    }
    path = identity_file(config)
    if path.is_file():
        changed = differences(as_written_now(read_json(path), config), identity)
        if changed:
            raise SdrrlError(
                f"{run}: holds a run with other settings ({', '.join(changed)}); set them as they were, or choose "
                "another run_dir"
            )
    run.mkdir(parents=True, exist_ok=True)
    with atomic_write(run / "config.yaml") as f:
        f.write(to_yaml(config))
    write_json(run / "provenance.json", provenance())
    if template := batches.dataset.manifest.get("chat_template"):  # the exported folder carries it
        with atomic_write(run / RUN_TEMPLATE) as f:
            f.write(template)
    if batches.mixture and batches.mixture.record:
        write_record(run, batches.mixture.record)
        if batches.mixture.record["never_drawn"]:
            print(f"{run}: never drawn: {never_drawn(batches.mixture.record)}")
    write_json(path, identity)
    remove_unfinished(checkpoints_of(config))


def _mixture(config: RunConfig, batches: MicroBatches) -> dict[str, Any]:
    """What a run has beyond Eq. 6 on one packed set: a blend, other lambda_d than 1. A run without has no such keys,
    and goes on in folders of versions that did not know them."""
    if batches.mixture is None:
        return {}
    if batches.mixture.record:
        return {"blend": identity_of_blend(batches.mixture.record)}
    return {"objective": dict(zip(batches.dataset.subset_names, batches.mixture.objective.tolist(), strict=True))}


def as_written_now(identity: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """An identity of an earlier version with the keys that came later: what runs did before there was a choice.

    Earlier versions named the model by its path: the same path is taken for the same model.
    """
    model = identity.get("model")
    if model == str(config.model.hf_path):
        model = model_key(Path(model))
    return {**identity, "model": model, "loss": {"normalise": "sum", **identity.get("loss", {})}}


def differences(before: dict[str, Any], here: dict[str, Any], section: str = "") -> list[str]:
    """What differs between two identities, sorted: ``data`` as a whole, of other sections each key with both values."""
    found: list[str] = []
    for key in sorted(before.keys() | here.keys()):
        old, new = before.get(key), here.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and key != "data":
            found += differences(old, new, f"{section}{key}.")
        elif old != new:
            short = max(len(str(old)), len(str(new))) < 20  # a number or a word, no hash and no list of files
            found.append(f"{section}{key}" + (f": {old} there, {new} here" if short else ""))
    return found


def is_finished(config: RunConfig) -> bool:
    """Whether the run has ended by itself before, which is then said."""
    finished = Path(config.run_dir) / FINISHED_FILE
    end = from_rank_zero(lambda: read_json(finished) if finished.is_file() else None)
    if end is None:
        return False
    if is_rank_zero():
        print(
            f"{config.run_dir}: all {end['step']} steps are done ({end['reason']}); "
            f"checkpoints in {checkpoints_of(config)}"
        )
    return True


def where_to_continue(config: RunConfig) -> tuple[int, Path | None]:
    """(step, its checkpoint) of the newest checkpoint whose files are whole; (0, None) for a new run, and where
    checkpoints hold the weights alone.

    The ranks check the files together, so they must have joined.
    """
    if not config.trainer.checkpoint_optimizer:
        return 0, None
    return newest_sound(checkpoints_of(config)) or (0, None)


def checkpoint_to_export(run: Path, step: int | None = None, latest: bool = False) -> Path:
    """The checkpoint of ``step``, or the newest, or the one with the best held-out loss where the run has such.

    The best is named by ``finished.json``, or by ``validation.jsonl`` while the run is not at its end. SdrrlError where
    the checkpoint that is asked for is not there.
    """
    done = dict(complete_checkpoints(run / "checkpoints"))
    if not done:
        raise SdrrlError(f"{run}/checkpoints: no finished checkpoint; train first")
    if step is None:
        return done[(None if latest else best_step(run, done)) or max(done)]
    if step not in done:
        there = ", ".join(map(str, sorted(done)))
        raise SdrrlError(f"{run}/checkpoints: none is of step {step}; there are those of {there} (--step, --latest)")
    return done[step]


def best_step(run: Path, among: Collection[int]) -> int | None:
    """Step of the best held-out loss that has a checkpoint; None where nothing was evaluated."""
    if (finished := run / FINISHED_FILE).is_file():
        best = read_json(finished).get("best_step")
        return best if best in among else None
    rows = run / VALIDATION_FILE
    evaluated = [row for _, row in read_jsonl(rows, torn_end=True)] if rows.is_file() else []
    found = [(row["loss"], row["step"]) for row in evaluated if row["step"] in among and math.isfinite(row["loss"])]
    return min(found)[1] if found else None


def clipping(config: RunConfig) -> dict[str, float]:
    """Print how many steps were clipped; their share of the steps taken, 0 to 1, as ``clipped_share``."""
    path = Path(config.run_dir) / METRICS_FILE
    rows = read_metrics(path) if path.is_file() else []
    clipped, taken = clipped_of(rows)
    said = clipping_of(identity_of(config.run_dir), rows)
    if said is None:
        return {}
    print(f"{config.run_dir}: gradients clipped {said}")
    return {"clipped_share": clipped / taken}


def waiting(config: RunConfig) -> dict[str, float]:
    """Mean of the seconds that a step waited for its micro-batches, as ``data_wait_s``; said where it is much."""
    path = Path(config.run_dir) / METRICS_FILE
    rows = read_metrics(path) if path.is_file() else []
    mean, share = waited_of(rows)
    if share > MUCH_WAITING:
        print(
            f"{config.run_dir}: a step waited {waiting_of(rows)} for its micro-batches; raise data.prefetch, or put "
            "the packed set on a faster disk"
        )
    return {} if mean is None else {"data_wait_s": mean}


def finish(config: RunConfig, step: int, held: HeldOutLoss | None, interrupted: bool) -> None:
    """Say how the run ended; a run that ended by itself is marked, so that the same command does nothing more."""
    if not is_rank_zero():
        return
    if interrupted:
        print(f"{config.run_dir}: SIGTERM after step {step}; the same command continues from its checkpoint")
        return
    early = held is not None and held.progress.exhausted
    end: dict[str, Any] = {"step": step, "reason": "no better held-out loss" if early else "end of training"}
    if held is not None:
        end |= {"best_step": held.progress.best_step, "best_loss": held.progress.best_loss}
    end |= clipping(config) | waiting(config)
    if config.trainer.save_every >= 0:
        write_json(Path(config.run_dir) / FINISHED_FILE, end)
