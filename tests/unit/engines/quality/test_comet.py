"""COMET over its pipe: real loading and scoring of tiny checkpoints in the real environment, and broken workers."""

from __future__ import annotations

import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.quality.comet import CometKiwi, CometScorer, XComet
from sdrrl_nemo.data.engines.quality.metricx import MetricX
from sdrrl_nemo.data.engines.quality.metricx_worker import text_of
from tests.launch import ROOT
from tests.unit.engines.quality.tiny_comet import SEGMENTS

PYTHON = ROOT / ".venv-comet/bin/python"
needs_comet = pytest.mark.skipif(not PYTHON.exists(), reason="COMET's environment is not there: make comet-env")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comet") / "models"
    builder = ROOT / "tests/unit/engines/quality/tiny_comet.py"
    done = subprocess.run(
        [str(PYTHON), str(builder), str(folder)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def kiwi(tiny: Path, **options: object) -> CometKiwi:
    return CometKiwi(str(tiny / "kiwi"), python=str(PYTHON), **options)  # type: ignore[arg-type]


@needs_comet
def test_scores_are_those_of_comets_own_predict(tiny: Path) -> None:
    expected = json.loads((tiny / "expected.json").read_text())
    sources, translations = [s["src"] for s in SEGMENTS], [s["mt"] for s in SEGMENTS]
    engine = pickle.loads(pickle.dumps(kiwi(tiny, batch_size=4)))
    assert engine.score(sources, translations) == pytest.approx(expected["kiwi"], abs=1e-5)
    assert engine.score(sources[::-1], translations[::-1]) == pytest.approx(expected["kiwi"][::-1], abs=1e-5)
    assert engine.score([], []) == []
    assert len(set(expected["kiwi"])) > 10
    da = CometScorer(str(tiny / "da"), "", str(PYTHON), "cpu", "fp32", 3)
    assert da.score(SEGMENTS) == pytest.approx(expected["da"], abs=1e-5)
    assert kiwi(tiny).identity == engine.identity != kiwi(tiny, precision="bf16").identity


@needs_comet
def test_xcomet_without_references_is_comets_own(tiny: Path) -> None:
    expected = json.loads((tiny / "expected.json").read_text())
    sources, translations = [s["src"] for s in SEGMENTS], [s["mt"] for s in SEGMENTS]
    engine = XComet(str(tiny / "xcomet"), python=str(PYTHON), batch_size=4)
    assert engine.score(sources, translations) == pytest.approx(expected["xcomet"], abs=1e-5)
    assert engine.identity.startswith("xcomet/")
    with pytest.raises(SdrrlError, match=r"hparams\.yaml is an xCOMET; name the engine 'xcomet'"):
        CometKiwi(str(tiny / "xcomet"), python=str(PYTHON)).check()
    with pytest.raises(SdrrlError, match=r"hparams\.yaml is no xCOMET; name the engine 'cometkiwi'"):
        XComet(str(tiny / "kiwi"), python=str(PYTHON)).check()


@needs_comet
def test_metricx_is_a_turned_error_of_the_official_input(tiny: Path) -> None:
    errors = json.loads((tiny / "expected.json").read_text())["metricx"]
    assert 25 in errors  # clipped
    assert len(set(errors)) > 8
    sources, translations = [s["src"] for s in SEGMENTS], [s["mt"] for s in SEGMENTS]
    engine = MetricX(str(tiny / "metricx"), str(tiny / "metricx/tokenizer"), python=str(PYTHON), batch_size=4)
    engine._scorer = scorer = pickle.loads(pickle.dumps(engine._scorer))
    rows = [{"src": s, "mt": t} for s, t in zip(sources, translations, strict=True)]
    assert scorer.score(rows) == pytest.approx([1 - error / 25 for error in errors], abs=1e-4)
    assert scorer.score(rows[::-1]) == pytest.approx([1 - error / 25 for error in errors[::-1]], abs=1e-4)
    assert scorer.lengths(rows[:1])[0] > 5
    assert engine.score(sources[:1], translations[:1]) == pytest.approx([1 - errors[0] / 25], abs=1e-4)
    for folder, said in ((tiny / "encoder", "is a 'xlm-roberta' model; MetricX-24 is an 'mt5'"), (tiny, "no model at")):
        with pytest.raises(SdrrlError, match=said):
            MetricX(str(folder), str(tiny / "encoder"), python=str(PYTHON)).check()
    with pytest.raises(SdrrlError, match=r"no tokenizer at .*; MetricX comes without one"):
        MetricX(str(tiny / "metricx"), str(tiny / "xcomet/none"), python=str(PYTHON)).check()


def test_metricx_reads_the_text_that_its_authors_state() -> None:
    """The strings of google-research/metricx, metricx24/predict.py, with --qe."""
    assert text_of({"src": " a\n", "mt": "b "}) == "source:  a\n candidate: b "
    assert text_of({"src": "", "mt": ""}) == "source:  candidate: "


def test_a_stand_in_for_metricx_is_turned_and_long_segments_are_halved(tmp_path: Path) -> None:
    """A program in the place of the environment's Python: errors 0, 5 and 25, and as many tokens as characters."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, sys\n"
        "out = os.fdopen(int(sys.argv[1]), 'w')\n"
        "def reply(x):\n    out.write(json.dumps(x) + chr(10)); out.flush()\n"
        "sys.stdin.readline(); reply({'ready': {}})\n"
        "for line in sys.stdin:\n"
        "    request = json.loads(line)\n"
        "    if request['want'] == 'lengths':\n"
        "        reply({'id': request['id'], 'lengths': [len(r['src'] + r['mt']) for r in request['data']]})\n"
        "    else:\n"
        "        errors = {'perfect': 0, 'fair': 5, 'bad': 25}\n"
        "        assert all(len(r['src'] + r['mt']) <= 1536 for r in request['data'])\n"
        "        reply({'id': request['id'], 'scores': [errors.get(r['mt'], 10) for r in request['data']]})\n"
    )
    python = misbehaving(tmp_path, f'exec {sys.executable} "{worker}" "$3"')
    (tmp_path / "config.json").write_text('{"model_type": "mt5"}')
    engine = MetricX(str(tmp_path), str(tmp_path), python=python)
    assert engine.score(["a", "b", "c"], ["perfect", "fair", "bad"]) == [1.0, 0.8, 0.0]
    (found,) = engine.assess(["word " * 400], ["palavra " * 400], ("eng", "por"))
    assert (found.score, found.segments) == (pytest.approx(0.6), 4)


@needs_comet
def test_the_worker_ends_with_its_parent(tiny: Path) -> None:
    program = (
        "import sys, time; from sdrrl_nemo.data.engines.quality.comet import CometKiwi\n"
        "k = CometKiwi(sys.argv[1], python=sys.argv[2]); k.score(['a'], ['b'])\n"
        "print('ready', flush=True); time.sleep(99)"
    )
    command = [sys.executable, "-c", program, str(tiny / "kiwi"), str(PYTHON)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        (child,) = psutil.Process(parent.pid).children()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@needs_comet
def test_a_killed_worker_is_one_sentence_and_the_next_call_starts_another(tiny: Path) -> None:
    engine = kiwi(tiny)
    first = engine.score(["a"], ["b"])
    process = engine._scorer._process
    assert process is not None
    process.kill()
    process.wait()
    with pytest.raises(SdrrlError, match=r"COMET's worker .* ended \(exit status -9\)"):
        engine.score(["a"], ["b"])
    assert engine.score(["a"], ["b"]) == first


@needs_comet
def test_what_the_worker_says_of_a_bad_model(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match="the encoder '/nowhere' is no folder here; download it"):
        kiwi(tiny, encoder="/nowhere").score(["a"], ["b"])
    broken = tmp_path / "broken"
    (broken / "checkpoints").mkdir(parents=True)
    (broken / "checkpoints/model.ckpt").write_bytes(b"no checkpoint")
    (broken / "hparams.yaml").write_text((tiny / "kiwi/hparams.yaml").read_text())
    with pytest.raises(SdrrlError, match=r"COMET's worker .* says: ") as caught:
        CometKiwi(str(broken), python=str(PYTHON)).score(["a"], ["b"])
    assert "\n" not in str(caught.value)


def misbehaving(folder: Path, script: str) -> str:
    """A program that stands where the environment's Python does."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nfd=$3\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


READY = "echo '{\"ready\": {}}' >/dev/fd/$fd; "


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no CUDA today >&2; exit 3", r"ended \(exit status 3\); its last words: no CUDA today"),
        ('echo "hello" >/dev/fd/$fd; cat >/dev/null', r"answered 'hello', which is no JSON"),
        (READY + 'echo \'{"id": 1, "scores": []}\' >/dev/fd/$fd; cat >/dev/null', r"gave .* for 1 segments"),
        (READY + 'echo \'{"id": 1, "error": "out of memory"}\' >/dev/fd/$fd; cat >/dev/null', "out of memory"),
    ],
)
def test_workers_that_misbehave(script: str, message: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "checkpoints").mkdir(parents=True)
    (model / "checkpoints/model.ckpt").write_bytes(b"")
    (model / "hparams.yaml").write_text("")
    engine = CometKiwi(str(model), python=misbehaving(tmp_path, script))
    with pytest.raises(SdrrlError, match=message) as caught:
        engine.score(["a"], ["b"])
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match=r"no COMET model at .*model\.ckpt; correct the option 'model'"):
        CometKiwi(str(tmp_path)).score(["a"], ["b"])
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/model.ckpt").write_bytes(b"")
    (tmp_path / "hparams.yaml").write_text("")
    with pytest.raises(SdrrlError, match="make COMET's environment: make comet-env"):
        CometKiwi(str(tmp_path), python="/nowhere/python").score(["a"], ["b"])
    with pytest.raises(SdrrlError, match="precision 'int8' is not one of"):
        CometKiwi(str(tmp_path), precision="int8")
