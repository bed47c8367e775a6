"""Folders that are whole or absent: written under another name, fsynced, renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sdrrl_nemo.common.fileio import fsync_dir, room_on_disk


@contextlib.contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside ``output``; on a clean exit its files are fsynced and it gets the name.

    A killed run's leftovers are removed by the next one. SdrrlError when the disk is full.
    """
    temporary = output.with_name(f".{output.name}.unfinished")
    with room_on_disk(output):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        for file in temporary.iterdir():
            with open(file, "rb+") as f:
                os.fsync(f.fileno())
            file.chmod(0o644)  # safetensors writes 0600
        fsync_dir(temporary)
        os.rename(temporary, output)
        fsync_dir(output.parent)
