"""The engine 'nemo_checkpoint' answers with what was trained: exported once, checked, keyed by the checkpoint."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import GENERATORS, fingerprint_of
from sdrrl_nemo.data.engines.generate.hf import HfGenerator
from sdrrl_nemo.data.engines.generate.nemo_checkpoint import NemoCheckpointGenerator
from tests.tiny import tiny_model
from tests.warm import python

QUESTIONS = ["What is 7 times 6?", "Why?"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as training leaves it: config.yaml and two finished checkpoints, one unfinished."""
    run = tmp_path_factory.mktemp("run")
    base = tiny_model(run.parent / f"{run.name}-base", layers=2)
    done = python("tools/import_hf.py", "--model", str(base), "--output", str(run / "checkpoints" / "step-000010"))
    assert done.returncode == 0, done.stdout[-4000:]
    (run / "checkpoints" / "step-000002").mkdir()
    (run / "checkpoints" / "unfinished-step-000012").mkdir()
    (run / "config.yaml").write_text(f"data: {{path: x}}\nmodel: {{hf_path: {base}}}\nrun_dir: {run}\n")
    return run


def test_the_newest_checkpoint_answers(run: Path, tmp_path: Path) -> None:
    base = run.parent / f"{run.name}-base"
    options = {"cache": str(tmp_path / "cache"), "max_new_tokens": 6, "unfinished": "keep"}
    engine = NemoCheckpointGenerator(checkpoint=str(run / "checkpoints" / "step-000010"), base=str(base), **options)
    identity, answers = engine.identity, engine.generate(QUESTIONS)
    assert answers == HfGenerator(str(base), max_new_tokens=6, unfinished="keep").generate(QUESTIONS)
    (folder,) = [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
    written = (folder / "model.safetensors").stat().st_mtime_ns
    copy = pickle.loads(pickle.dumps(engine))
    assert (copy.identity, copy.generate(QUESTIONS)) == (identity, answers)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written

    from_run = NemoCheckpointGenerator(run=str(run), base=str(base), **options)
    assert from_run.identity == identity
    assert NemoCheckpointGenerator(run=str(run), **options).identity == identity
    other = shutil.copytree(run / "checkpoints" / "step-000010", tmp_path / "step-000010")
    part = next(p for p in sorted((other / "weights").iterdir()) if p.suffix == ".distcp")
    part.write_bytes(part.read_bytes()[:-1])
    spoilt = NemoCheckpointGenerator(checkpoint=str(other), base=str(base), **options)
    assert fingerprint_of(spoilt) != fingerprint_of(engine)


def test_bad_options_are_one_sentence(run: Path, tmp_path: Path) -> None:
    def make(**options: object) -> None:
        GENERATORS.create("nemo_checkpoint", **options)

    with pytest.raises(SdrrlError, match="give 'run', or both 'checkpoint' and 'base'"):
        make(checkpoint="x")
    with pytest.raises(SdrrlError, match="holds no finished checkpoint; train first"):
        make(run=str(tmp_path))
    with pytest.raises(SdrrlError, match="step-000002 is no finished Megatron checkpoint"):
        make(checkpoint=str(run / "checkpoints" / "step-000002"), base=str(tmp_path))
    with pytest.raises(SdrrlError, match="weights 'mater' is unknown; did you mean 'master'"):
        make(run=str(run), weights="mater")
    base = run.parent / f"{run.name}-base"
    with pytest.raises(SdrrlError, match="dtype 'fp8' is unknown"):
        make(run=str(run), base=str(base), dtype="fp8")
