"""Before the first stage: all faults of a configuration at once, and what a dry run prints."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.data.chosen_engines import ROLES
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.preflight import checks
from sdrrl_nemo.data.preflight.forecast import RATES, forecast
from tests.launch import ROOT
from tests.tiny_tokenizer import save_tokenizer
from tests.unit.data.shipped.resources import comet, instructions, muse, opus, write
from tests.unit.data.tiny_run import tiny_config
from tools import preprocess_sdrrl

Usage = namedtuple("Usage", "total used free")


def closed_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def broken_world(root: Path) -> list[str]:
    """The paper's configuration with a fault of every kind; returns its overrides."""
    for maker in (comet, instructions, opus):
        maker(root)
    muse(root / "data/muse")
    write(root / ".venv-comet/worker.py", "import sys; sys.exit('no GPU today')")
    (root / "data/alpaca/alpaca_data.json").unlink()
    model = save_tokenizer(root / "work/models/Llama-2-7b-chat-hf")
    (model / "chat_template.jinja").unlink()  # a base model, whose template nobody has named
    shutil.rmtree(root / "data/opus100/en-pt")
    (root / "data/muse/en-da.txt").unlink()
    return [
        "target_languages=[por,dan,jpn]",
        "parallel.train_pairs=6",
        "parallel.held_out_pairs=3",
        f"generation.engine.options.base_url=http://127.0.0.1:{closed_port()}/v1",
        "by_pair.eng-jpn.parallel.train_pairs=100000",
        "by_pair.*-por.code_switch.dictionary.name=freedict",
        "by_pair.*-por.code_switch.dictionary.options.folder=nowhere",
        "by_pair.*-dan.language_id.engine.name=cld4",
        "by_pair.*-jpn.quality.engine.name=use",
        "by_pair.*-dan.quality.engine.options.encoder=nowhere/infoxlm",
    ]


FAULTS = {
    r"instructions\.path: data/alpaca/alpaca_data\.json: .*no such file.* \(eng\)",
    r"model: work/models/Llama-2-7b-chat-hf: the tokenizer has no chat template",
    r"generation\.engine: http://127\.0\.0\.1:\d+/v1/models: connection failed .* check that it runs",
    r"translation: translator 'nllb_ctranslate2'.*nllb-200-3\.3B holds no model.* \(eng-por eng-dan eng-jpn\)",
    r"quality\.engine: COMET's worker .* ended .*no GPU today",
    r"quality\.engine: .*the encoder 'nowhere/infoxlm' is no folder here.* \(eng-dan\)",
    r"language_id\.engine\.name: unknown language identifier backend 'cld4'; did you mean 'cld3'\? \(eng-dan\)",
    r"code_switch\.dictionary: .*nowhere/freedict-eng-por\.index is missing.* \(eng-por\)",
    r"code_switch\.dictionary: .*neither data/muse/en-da\.txt nor da-en\.txt is there.* \(eng-dan\)",
    r"parallel\.engine: parallel corpus 'opus100': data/opus100/en-pt holds neither.* \(eng-por\)",
    r"parallel\.engine: the parallel corpus for eng-jpn has 24 pairs, where .*=100000 .* \(eng-jpn\)",
    r"output_dir: .*: 0 MB are free, and the run will write about \d+ MB",
}


def test_all_faults_are_listed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = broken_world(tmp_path)
    free = {"bytes": 10**15}
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: Usage(0, 0, free["bytes"]))
    begin = time.process_time()  # what others do on this machine is no fault of the preflight
    command = ["--config", str(ROOT / "configs/data/paper_eng.yaml"), *overrides]
    assert run(preprocess_sdrrl.main, command) == 2
    seconds = time.process_time() - begin
    said = capsys.readouterr().err
    found = re.findall(r"^problem \d+: (.*)$", said, re.MULTILINE)
    # The disk is compared with a forecast, which needs the instruction set.
    expected = {fault for fault in FAULTS if not fault.startswith("output_dir")}
    assert [f for f in expected if not any(re.fullmatch(f".*{f}.*", sentence) for sentence in found)] == []
    assert len(found) == len(expected)
    assert f"error: {len(found)} problems, listed above; nothing was started" in said
    assert not (tmp_path / "work/data/paper_eng/stages").exists()
    assert seconds < 20
    instructions_again = tmp_path / "again"
    instructions(instructions_again)
    shutil.copy(instructions_again / "data/alpaca/alpaca_data.json", "data/alpaca/alpaca_data.json")
    free["bytes"] = 1
    assert run(preprocess_sdrrl.main, [*command, "--dry-run"]) == 2
    shown = capsys.readouterr()
    assert re.search(r"output_dir: .*: 0 MB are free, and the run will write about \d+ MB", shown.err)
    assert "alpaca_data.json" not in shown.err
    assert "questions for training in eng" in shown.out  # the plan is printed all the same


def test_a_single_fault_is_the_error_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_config(tmp_path)
    assert run(preprocess_sdrrl.main, ["--config", str(path), "parallel.train_pairs=1000"]) == 2
    said = capsys.readouterr().err
    assert (
        "error: parallel.engine: the parallel corpus for eng-por has 60 pairs, where parallel.train_pairs=1000" in said
    )
    assert "problem 1" not in said


def dry(path: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    assert run(preprocess_sdrrl.main, ["--config", str(path), "--dry-run", *overrides]) == 0
    return capsys.readouterr().out


def test_a_dry_run_says_what_is_to_do_and_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_config(tmp_path, rows=30)
    out = dry(path, capsys)
    assert not (tmp_path / "out").exists()
    assert "20 questions for training in eng" in out
    assert out.count("to do") == 18
    assert run(preprocess_sdrrl.main, ["--config", str(path)]) == 0
    capsys.readouterr()
    out = dry(path, capsys)
    assert "to do" not in out
    assert out.count("done") == 18
    # Another threshold leaves what comes before it, and the other corpus' samples.
    out = dry(path, capsys, "quality.tau=0.2")
    lines = {line.split()[1]: line for line in out.splitlines() if "done" in line or "to do" in line}
    undone = {name for name, line in lines.items() if "to do" in line}
    assert undone >= {"quality", "heuristics", "language-id", "subsets", "code-switch", "order", "tokenize"}
    assert not undone & {"ingest", "generate", "sample", "translate", "parallel", "templates"}


def test_the_forecast_is_the_work_of_the_run(tmp_path: Path) -> None:
    """The calls that the tiny engines get, counted by a run's own statistics, and the bytes it leaves."""
    path = tiny_config(tmp_path, rows=150)
    config = load_config(PreprocessConfig, path, ["quality.tau=-1", "language_id.min_letters=10000"])
    predicted = forecast(config)
    assert run(preprocess_sdrrl.main, ["--config", str(path), "quality.tau=-1", "language_id.min_letters=10000"]) == 0
    stats = json.loads((tmp_path / "out/stats.json").read_text(encoding="utf-8"))
    stages = {stage["name"]: stage for stage in stats["stages"]}
    calls = {work.role: work.calls for work in predicted.work}
    assert predicted.rows == {"eng": 140}
    assert calls["translator"] == stages["translate"]["in"] + stages["held-out-translate"]["in"]
    assert calls["quality"] == stages["quality"]["in"] + stages["held-out-quality"]["in"]
    assert calls["generator"] == pytest.approx(stages["generate"]["in"], rel=0.2)  # drawn: half of them on average
    assert 0 <= predicted.samples - stats["packing"]["samples"] < 0.1 * predicted.samples
    left = sum(f.stat().st_size for f in (tmp_path / "out").rglob("*") if f.is_file())
    assert left / 2 < predicted.disk_bytes < 3 * left


def test_rates_are_of_engines_that_there_are() -> None:
    names: set[Any] = {name for _, registry in ROLES.values() for name in registry}
    assert set(RATES) <= names
    assert all(0 < rate.low <= rate.high and rate.why for rate in RATES.values())
