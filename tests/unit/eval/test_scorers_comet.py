"""COMET with references: a tiny wmt22-comet-da scored through the real worker, resumption, and what is refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.quality.comet import CometKiwi
from sdrrl_nemo.data.engines.quality.scoring_process import Segment
from sdrrl_nemo.eval.scorers import comet
from tests.launch import ROOT

PYTHON = ROOT / ".venv-comet/bin/python"
needs_comet = pytest.mark.skipif(not PYTHON.exists(), reason="COMET's environment is not there: make comet-env")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """da (regression_metric: src, mt and ref) with random weights, segments, and what COMET's own predict gives."""
    folder = tmp_path_factory.mktemp("comet") / "models"
    done = subprocess.run(
        [str(PYTHON), str(ROOT / "tests/unit/eval/tiny_comet_da.py"), str(folder)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@needs_comet
def test_scores_are_those_of_comets_own_predict(tiny: Path) -> None:
    rows = json.loads((tiny / "segments.json").read_text())
    expected = json.loads((tiny / "expected.json").read_text())
    assert len(rows) >= 200
    assert len(set(expected)) > 150
    segments = comet.make_segments(*([r[k] for r in rows] for k in ("src", "mt", "ref")))
    assert segments == rows
    scorer = comet.open_scorer(str(tiny / "da"), python=str(PYTHON), batch_size=16)
    whole = [x for part in comet.score_batches(scorer, segments) for x in part]
    assert whole == pytest.approx(expected, abs=1e-5)
    # requests of another size and a start in the middle, so other batches, change nothing; expected has batches of one
    parts = list(comet.score_batches(scorer, segments, done=len(rows) - 10, send=3))
    assert [len(p) for p in parts] == [3, 3, 3, 1]
    assert [x for p in parts for x in p] == pytest.approx(whole[-10:], abs=2e-6)
    assert comet.score_item(scorer, *rows[1].values()) == pytest.approx(whole[1], abs=2e-6)
    assert comet.score_item(scorer, rows[1]["src"], rows[1]["mt"], "Another reference.") != whole[1]
    assert comet.corpus_score(whole) == pytest.approx(100 * sum(expected) / len(expected), abs=1e-3)
    scorer.close()
    with pytest.raises(SdrrlError, match=r"this model scores with references \(regression_metric\)"):
        CometKiwi(str(tiny / "da"), python=str(PYTHON)).score(["a"], ["b"])


@needs_comet
def test_a_model_without_references_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/model.ckpt").write_bytes(b"")
    (tmp_path / "hparams.yaml").write_text("class_identifier: unified_metric\ninput_segments: [mt, src]\n")
    with pytest.raises(SdrrlError, match=r"this model scores without references \(unified_metric\)"):
        comet.score_item(comet.open_scorer(str(tmp_path), python=str(PYTHON)), "a", "b", "c")


class Recorder:
    """Scores a segment by its length; stops with an error after some requests."""

    def __init__(self, stop_after: int) -> None:
        self.requests: list[int] = []
        self.stop_after = stop_after

    def score(self, segments: Sequence[Segment]) -> list[float]:
        if len(self.requests) == self.stop_after:
            raise KeyboardInterrupt
        self.requests.append(len(segments))
        return [float(len(s["mt"])) for s in segments]


def test_a_stopped_caller_goes_on_where_it_stopped() -> None:
    segments = comet.make_segments(["s"] * 10, ["x" * i for i in range(10)], ["r"] * 10)
    stored: list[float] = []

    def run(scorer: Recorder) -> None:
        for part in comet.score_batches(scorer, segments, done=len(stored), send=3):
            stored.extend(part)

    with pytest.raises(KeyboardInterrupt):
        run(Recorder(2))
    assert len(stored) == 6
    second = Recorder(9)
    run(second)
    assert stored == [float(i) for i in range(10)]
    assert second.requests == [3, 1]
    assert list(comet.score_batches(second, segments, done=10)) == []


def test_every_segment_is_scored_in_requests_of_512_unless_told_otherwise() -> None:
    segments = comet.make_segments(["s"] * 513, ["x"] * 513, ["r"] * 513)
    recorder = Recorder(9)
    assert [len(part) for part in comet.score_batches(recorder, segments)] == recorder.requests == [512, 1]
    assert [len(part) for part in comet.score_batches(Recorder(9), segments[:2], send=1)] == [1, 1]
    assert comet.score_item(Recorder(9), "a", "bcd", "e") == 3.0
    assert comet.corpus_score([0.5, 0.7]) == pytest.approx(60.0)
    for options in ({"send": 0}, {"done": -1}, {"done": 514}):
        with pytest.raises(SdrrlError, match="give numbers that fit"):
            list(comet.score_batches(recorder, segments, **options))


def test_a_worker_is_told_all_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(comet, "CometScorer", lambda *a, **k: seen.append((a, k)))
    comet.open_scorer("m", "e", "p", "cuda", "bf16", 7)
    comet.open_scorer("m")
    told = {"reference": True, "name": "COMET wmt22-comet-da", "docs": "docs/scorers.md"}
    assert seen == [
        (("m", "e", "p", "cuda", "bf16", 7), told),
        (("m", "", comet.PYTHON, "cpu", "fp32", 32), told),
    ]


def test_what_cannot_be_scored(tmp_path: Path) -> None:
    assert math.isnan(comet.corpus_score([]))
    with pytest.raises(SdrrlError, match="1 sources, 2 translations and 1 references"):
        comet.make_segments(["a"], ["b", "c"], ["d"])
    with pytest.raises(SdrrlError, match="3 of 1 segments done"):
        list(comet.score_batches(Recorder(1), [{"src": "a", "mt": "b", "ref": "c"}], done=3))
    with pytest.raises(SdrrlError, match=r"COMET wmt22-comet-da: no COMET model at .*docs/scorers\.md"):
        comet.score_item(comet.open_scorer(str(tmp_path)), "a", "b", "c")
    with pytest.raises(SdrrlError, match="COMET wmt22-comet-da: precision 'int8' is not one of"):
        comet.open_scorer(str(tmp_path), precision="int8")
