"""Checkpoints that are whole and proven, or absent.

A checkpoint is written under another name, hashed, brought to the disk and only then renamed, so a folder with a
checkpoint's name is complete whenever the machine stops. A resume compares the hashes before it trusts the files.

Most functions here are collective: every rank calls them, and the ranks share the files between them.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import fsync_dir, sha256_file
from sdrrl_nemo.common.hashes import MANIFEST, differing, hashed_files, read_manifest, write_manifest
from sdrrl_nemo.common.ranks import from_rank_zero
from sdrrl_nemo.compat.checkpoint_queue import shield
from sdrrl_nemo.train.config import checkpoint_name

NAME = re.compile(r"^step-(\d{6,})$")
UNFINISHED = "unfinished-"
"""Before the name of a checkpoint that is being written."""
DAMAGED = "damaged-"
"""Before the name of one that was found damaged; it is kept, so that somebody can look at it."""
UNREADABLE = "cannot be read: "
"""Before the system's words, where a hash would stand."""
SEEN_WITHIN_S = 30.0
"""How long a rank waits for a file that rank 0 sees."""


def complete_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, directory) of each finished checkpoint, oldest first."""
    if not folder.is_dir():
        return []
    found = [(int(m[1]), p) for p in folder.iterdir() if (m := NAME.match(p.name)) and p.is_dir()]
    return sorted(found)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed run left half written; finished checkpoints are never touched."""
    for p in folder.glob(f"{UNFINISHED}*"):
        # The writer of an asynchronous save can outlive its killed run for a moment and add a file while we delete;
        # what it adds belongs to nobody and goes at the next start.
        shutil.rmtree(p, ignore_errors=True)


def _ranks() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _common_token() -> str:
    """A name that no save had before, the same on every rank."""
    # Without it an asynchronous writer that outlives its killed run could write into the next run's save of that step.
    token: list[Any] = [uuid.uuid4().hex[:8]]
    dist.broadcast_object_list(token, src=0)
    return str(token[0])


def _gather(mine: dict[str, Any]) -> dict[str, Any]:
    """The dictionaries of all ranks as one."""
    if not dist.is_initialized():
        return mine
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, mine)
    return {k: v for part in parts for k, v in part.items()}


def hashes(folder: Path) -> dict[str, str]:
    """File -> SHA-256, computed by all ranks together; every rank calls this and gets the whole.

    In its place stands why a file cannot be read (``UNREADABLE``): an error on one rank alone would leave the others
    waiting for its part.
    """
    rank, size = _ranks()
    return _gather({name: _digest(folder / name) for name in from_rank_zero(lambda: hashed_files(folder))[rank::size]})


def _digest(path: Path) -> str:
    give_up = time.monotonic() + SEEN_WITHIN_S
    while True:
        try:
            return sha256_file(path)
        except OSError as e:
            # Rank 0 has seen the file; on a shared file system another machine may see it a little later.
            if e.errno not in (errno.ENOENT, errno.ESTALE) or time.monotonic() > give_up:
                return f"{UNREADABLE}{e.strerror or e}"
        time.sleep(0.2)


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file; None: it is as it was written. Every rank calls this."""
    try:
        expected, there = from_rank_zero(lambda: (read_manifest(folder), hashed_files(folder)))
    except SdrrlError as e:
        return str(e)
    if expected is None:
        return f"{folder / MANIFEST} is missing"
    missing = sorted(set(expected) - set(there))
    if missing:
        return f"{folder / missing[0]} is missing"
    found = hashes(folder)
    wrong = differing(expected, {name: found[name] for name in expected})  # what was added since is not read
    if not wrong:
        return None
    if found[wrong[0]].startswith(UNREADABLE):
        return f"{folder / wrong[0]} {found[wrong[0]]}"
    return f"{folder / wrong[0]} is damaged (its SHA-256 is not the one in {MANIFEST})"


def newest_sound(folder: Path) -> tuple[int, Path] | None:
    """(step, directory) of the newest checkpoint whose files are as they were written; None: there is none yet.

    A damaged one is renamed and named in one sentence. SdrrlError when there are checkpoints and all are damaged.
    Every rank calls this.
    """
    rank, _ = _ranks()
    found = from_rank_zero(lambda: complete_checkpoints(folder))
    for step, path in reversed(found):
        wrong = damage(path)
        if wrong is None:
            return step, path
        if dist.is_initialized():
            dist.barrier()  # no rank still reads the folder that rank 0 is about to rename
        if rank == 0:
            print(f"{wrong}; going back to the checkpoint before it", file=sys.stderr, flush=True)
            kept = path.with_name(DAMAGED + path.name)
            if kept.exists():
                shutil.rmtree(kept)
            os.replace(path, kept)
    if found:
        raise SdrrlError(f"{folder}: every checkpoint is damaged; remove the run's directory to start anew")
    return None


def _fsync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            with open(os.path.join(root, name), "rb+") as f:
                os.fsync(f.fileno())
        fsync_dir(Path(root))


class AtomicCheckpoint(pl.Callback):
    """Saves every ``every`` steps, at the end, and on SIGTERM.

    Args:
        folder: where the checkpoints go.
        every: steps from one checkpoint to the next; 0: only at the end; -1: never, not on SIGTERM either.
        keep: how many of the newest stay.
        best_step: says which step had the best held-out loss; its checkpoint is saved and stays, too.
        asynchronous: files are written by processes of their own while training goes on (NeMo's
            AsyncFinalizableCheckpointIO); hashing and the rename follow after the first step at whose end all ranks'
            writers are done.
    """

    def __init__(
        self,
        folder: str,
        every: int,
        keep: int,
        best_step: Callable[[], int] | None = None,
        asynchronous: bool = False,
    ) -> None:
        self.folder = folder
        self.every = every
        self.keep = keep
        self.best_step = best_step
        self.asynchronous = asynchronous
        self.terminated = False
        self._asked = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """From here on SIGTERM, or SIGHUP of a terminal that closes, asks for a checkpoint after the running step."""

        def remember(signum: int, frame: FrameType | None) -> None:
            self._asked = True  # no more than that: a save within a signal handler could meet a half-done step

        shield()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, remember)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Save when a step, the end of the run or SIGTERM asks for it."""
        step = trainer.global_step
        self.terminated = self._anyone_asked()
        if self.every < 0:
            trainer.should_stop = trainer.should_stop or self.terminated
            return
        best = self.best_step is not None and self.best_step() == step
        last = step == trainer.max_steps or trainer.should_stop or self.terminated
        if last or best or (self.every and step % self.every == 0):
            self.save(trainer, step)
        if self.terminated:
            trainer.should_stop = True

    def _anyone_asked(self) -> bool:
        """Whether any rank got SIGTERM: the signal need not reach all of them in the same step.

        Asked after every step; a save is collective, so all ranks must decide alike.
        """
        flag = torch.tensor([float(self._asked)], device=torch.cuda.current_device())
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def save(self, trainer: pl.Trainer, step: int) -> None:
        """Write the checkpoint of ``step``, or start to; every rank calls this."""
        final = Path(self.folder) / checkpoint_name(step)
        temporary = final.with_name(f"{UNFINISHED}{final.name}-{_common_token()}")
        if self.asynchronous:
            trainer.save_checkpoint(temporary, storage_options={"finalize_fn": lambda: self._publish(temporary, final)})
            return
        trainer.save_checkpoint(temporary)
        dist.barrier()
        self._publish(temporary, final)

    def _publish(self, temporary: Path, final: Path) -> None:
        """Hash, fsync and rename what all ranks have written; every rank calls this."""
        digests = hashes(temporary)
        for name, digest in digests.items():
            if digest.startswith(UNREADABLE):
                raise SdrrlError(f"{temporary / name} was just written and {digest}; check the disk")
        if dist.get_rank() == 0:
            write_manifest(temporary, digests)
            _fsync_tree(temporary)
            if final.exists():
                shutil.rmtree(final)
            os.replace(temporary, final)
            fsync_dir(final.parent)  # the rename itself reaches the disk before an older checkpoint is given up
            self._remove_old(final.parent)
        dist.barrier()

    def _remove_old(self, folder: Path) -> None:
        """Delete all but the newest ``keep`` checkpoints and the best one."""
        best = self.best_step() if self.best_step else 0
        for step, old in complete_checkpoints(folder)[: -self.keep]:
            if step != best:
                shutil.rmtree(old)
