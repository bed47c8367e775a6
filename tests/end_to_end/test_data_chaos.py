"""A few kills of tests/end_to_end/data_chaos.py, and the tool's output for 1 and 4 workers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sdrrl_nemo.common.cli import run as run_main  # noqa: E402
from tests.end_to_end.data_chaos import check, counts, final_bytes  # noqa: E402
from tests.unit.data.tiny_run import tiny_config  # noqa: E402
from tests.warm import Forked  # noqa: E402


def run_here(config: Path, *overrides: str) -> int:
    from tools.preprocess_sdrrl import main

    return run_main(main, ["--config", str(config), *overrides])


def finish_here(config: Path, output: Path, *overrides: str) -> None:
    assert run_here(config, f"output_dir={output}", *overrides) == 0


def start_forked(config: Path, output: Path, *overrides: str) -> Forked:
    """The driver with its imports done; its workers start as they always do."""
    tool, log = ROOT / "tools/preprocess_sdrrl.py", output.with_suffix(".log")
    arguments = ["--config", str(config), f"output_dir={output}", *overrides]
    return Forked(tool, *arguments, log=log, folder=config.parent)


def test_killed_drivers_and_workers_change_nothing(tmp_path: Path) -> None:
    """Two workers against one process that was left alone."""
    done = check(tmp_path, "local", workers=2, kills=2, seed=3, finish=finish_here, start=start_forked)
    assert done["driver"] >= 1


def test_same_bytes_with_1_and_4_workers(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    finish_here(config, tmp_path / "one")
    # one worker for the tokenizer: each that has it imports transformers first, for seconds
    four = ("execution.workers=4", "execution.stages={tokenize: {workers: 1}}")
    finish_here(config, tmp_path / "four", *four)
    assert final_bytes(tmp_path / "four") == final_bytes(tmp_path / "one")
    assert counts(tmp_path / "four") == counts(tmp_path / "one")


def test_a_poisoned_row_goes_to_the_rejects_of_the_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.unit.data.tiny_engines import TinyTranslator

    translate = TinyTranslator.translate

    def poisoned(self: TinyTranslator, texts: list[str], source: str, target: str) -> list[str]:
        if any("question number 17 " in text for text in texts):
            raise IndexError("index out of range in self")
        return translate(self, texts, source, target)

    monkeypatch.setattr(TinyTranslator, "translate", poisoned)
    config = tiny_config(tmp_path)
    assert run_here(config, "execution.max_failed_fraction=0.2") == 0
    rejects = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    poison = [r for r in rejects if r["reason"] == "error: IndexError"]
    assert {r["stage"].removeprefix("held-out-") for r in poison} == {"translate"}
    assert all("question number 17 " in json.dumps(r["row"]) for r in poison)
    stats = counts(tmp_path / "out")
    assert sum(s["dropped"].get("error: IndexError", 0) for s in stats["stages"]) == len(poison)  # type: ignore[attr-defined]
    overrides = ("execution.on_error=fail", f"output_dir={tmp_path / 'strict'}")
    assert run_here(config, *overrides) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert "1 rows failed where 0 may" in error[0]
    assert "IndexError: index out of range in self" in error[0]
