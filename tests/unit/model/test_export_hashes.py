"""A run's checkpoint is compared with its hashes before anything of it is read: parts of it are pickles."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.model import export
from sdrrl_nemo.train.callbacks import checkpoint as training


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The files of a checkpoint, hashed as training hashes them."""
    folder = tmp_path / "step-000001"
    (folder / "weights").mkdir(parents=True)
    (folder / "context").mkdir()
    for name in ("weights/metadata.json", "weights/common.pt", "weights/.metadata", "context/model.yaml"):
        (folder / name).write_text(name)
    write_json(folder / training.MANIFEST, training.hashes(folder))
    return folder


def test_a_sound_checkpoint_has_a_fingerprint_that_its_manifest_does_not_change(checkpoint: Path) -> None:
    assert export.MANIFEST == training.MANIFEST
    first = export._fingerprint(checkpoint)
    (checkpoint / export.MANIFEST).unlink()  # as tools/import_hf.py writes one
    assert export._fingerprint(checkpoint) == first
    (checkpoint / "weights" / "common.pt").write_text("other")
    assert export._fingerprint(checkpoint) != first


@pytest.mark.parametrize("name", ["common.pt", ".metadata"])
def test_a_changed_pickle_is_refused_before_it_is_read(checkpoint: Path, name: str) -> None:
    (checkpoint / "weights" / name).write_text("changed")
    with pytest.raises(SdrrlError, match=rf"{name}: missing, or not as the run wrote it"):
        export._fingerprint(checkpoint)
    (checkpoint / "weights" / name).unlink()
    with pytest.raises(SdrrlError, match=rf"{name}: missing"):
        export._fingerprint(checkpoint)


def test_a_file_that_the_run_did_not_write_is_refused(checkpoint: Path) -> None:
    (checkpoint / "weights" / "__9_9.distcp").write_text("slipped in")
    with pytest.raises(SdrrlError, match=r"__9_9\.distcp: missing, or not as the run wrote it"):
        export._fingerprint(checkpoint)
