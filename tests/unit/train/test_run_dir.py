"""Which checkpoint an export takes, and what all ranks learn from rank 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.train.config import checkpoint_name
from sdrrl_nemo.train.run_dir import FINISHED_FILE, checkpoint_to_export
from tests.launch import environment, free_port


def run_with(folder: Path, steps: list[int]) -> Path:
    for step in steps:
        (folder / "checkpoints" / checkpoint_name(step)).mkdir(parents=True)
    return folder


def evaluated(run: Path, losses: dict[int, float]) -> None:
    rows = [json.dumps({"step": step, "loss": loss}) for step, loss in losses.items()]
    (run / "validation.jsonl").write_text("\n".join(rows) + '\n{"step": 9, "lo', encoding="utf-8")  # cut by a kill


def test_without_held_out_data_the_newest_is_exported(tmp_path: Path) -> None:
    run = run_with(tmp_path, [3, 12, 6])
    assert checkpoint_to_export(run).name == checkpoint_name(12)
    write_json(run / FINISHED_FILE, {"step": 12, "reason": "end of training"})
    assert checkpoint_to_export(run).name == checkpoint_name(12)


def test_the_best_is_exported_unless_another_is_named(tmp_path: Path) -> None:
    run = run_with(tmp_path, [3, 6, 9])
    write_json(run / FINISHED_FILE, {"step": 9, "reason": "no better held-out loss", "best_step": 3, "best_loss": 1.5})
    assert checkpoint_to_export(run).name == checkpoint_name(3)
    assert checkpoint_to_export(run, latest=True).name == checkpoint_name(9)
    assert checkpoint_to_export(run, step=6).name == checkpoint_name(6)
    with pytest.raises(SdrrlError, match=r"none is of step 4; there are those of 3, 6, 9 \(--step, --latest\)$"):
        checkpoint_to_export(run, step=4)


def test_of_a_run_that_goes_on_the_best_that_is_there_is_exported(tmp_path: Path) -> None:
    run = run_with(tmp_path, [6, 9])
    evaluated(run, {3: 1.0, 6: 2.0, 9: float("nan")})  # step 3 was the best, and its checkpoint is gone
    assert checkpoint_to_export(run).name == checkpoint_name(6)
    with pytest.raises(SdrrlError, match="no finished checkpoint; train first"):
        checkpoint_to_export(tmp_path / "nothing")


RANK = """
import os, torch.distributed as dist
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.ranks import from_rank_zero, join

first = os.environ["RANK"] == "0"

def ask():
    assert first, "only rank 0 may look"
    return {"step": 7}

def fail():
    raise SdrrlError("nothing there") if first else AssertionError()

def no_file():
    open("/nowhere/file")

join()
join()
print(from_rank_zero(ask))
for wrong in (fail, no_file):
    try:
        from_rank_zero(wrong)
    except SdrrlError as e:
        print(e)
dist.destroy_process_group()
"""


def test_what_rank_zero_finds_is_known_to_all() -> None:
    common = environment() | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK], env={**common, "RANK": str(r)}, stdout=subprocess.PIPE, text=True
        )
        for r in range(2)
    ]
    replies = [rank.communicate(timeout=120)[0].splitlines() for rank in ranks]
    said = [[line for line in lines if not line.startswith("[Gloo]")] for lines in replies]  # torch 2.9 says who it is
    assert said[0] == said[1], said
    assert said[0][:2] == ["{'step': 7}", "nothing there"]
    assert os.strerror(2) in said[0][2]
