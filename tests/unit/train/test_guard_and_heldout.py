"""What a step is judged by, what early stopping counts, and what a damaged checkpoint does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.train.callbacks.checkpoint import MANIFEST, damage, hashes, newest_sound
from sdrrl_nemo.train.callbacks.heldout import Progress
from sdrrl_nemo.train.config import OptimSettings, SpikeSettings, checkpoint_name
from sdrrl_nemo.train.guard import StepGuard
from sdrrl_nemo.train.schedule import automatic_lr, learning_rate


def guard(folder: Path, history: list[float] | None = None, **settings: float) -> StepGuard:
    return StepGuard(SpikeSettings(**settings), str(folder), lambda s, d, m: [f"{s}-{d}-{m}"], history or [])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_skipped(bad: float, tmp_path: Path) -> None:
    g = guard(tmp_path)
    assert g.reason(bad, 1.0) and "loss" in str(g.reason(bad, 1.0))
    assert g.reason(1.0, bad) and "gradient norm" in str(g.reason(1.0, bad))
    assert g.reason(1.0, 1e30) is None  # a finite norm is no spike unless spikes are asked for


def test_a_spike_is_measured_against_the_median(tmp_path: Path) -> None:
    g = guard(tmp_path, [1.0, 2.0, 100.0], factor=3.0, warmup=3, window=3)
    assert g.reason(1.0, 6.0) is None
    assert "3 x the median 2" in str(g.reason(1.0, 6.1))
    assert guard(tmp_path, [1.0, 2.0], factor=3.0, warmup=3, window=3).reason(1.0, 99.0) is None


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=40), st.integers(1, 10))
def test_history_of_a_resume_judges_like_the_run_that_went_on(norms: list[float], window: int) -> None:
    straight = guard(Path("unused"), factor=2.0, warmup=1, window=window)
    for n in norms:
        straight.norms.append(n)
    resumed = guard(Path("unused"), norms, factor=2.0, warmup=1, window=window)
    assert list(resumed.norms) == list(straight.norms)


@pytest.mark.usefixtures("alone")
def test_skipped_steps_name_their_samples_and_end_the_run(tmp_path: Path) -> None:
    g = guard(tmp_path, max_in_a_row=2)
    assert not g.judge(0, 1.0, 1.0, torch.tensor([0.5, 0.5]))
    assert g.judge(1, math.nan, 1.0, torch.tensor([0.5, math.nan]))
    (line,) = [json.loads(x) for x in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert line["step"] == 2
    assert line["micro_batches"] == [{"data_parallel_rank": 0, "micro_batch": 1, "loss": "nan", "samples": ["1-0-1"]}]
    assert not g.judge(2, 1.0, 1.0, None)  # a good step starts the count anew
    assert g.judge(3, 1.0, math.inf, torch.tensor([1.0, 2.0]))
    with pytest.raises(SdrrlError, match=r"step 5: .* 2 steps in a row were skipped"):
        g.judge(4, 1.0, math.inf, torch.tensor([1.0, 2.0]))
    last = json.loads((tmp_path / "skipped.jsonl").read_text().splitlines()[-1])
    assert [m["loss"] for m in last["micro_batches"]] == [2.0, 1.0]  # no loss is bad: all, the largest first
    assert list(g.norms) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("parts", "cp", "losses"),
    [
        # tensor-parallel ranks hold the same micro-batches, pipeline ranks before the last hold none
        ([(0, [1.0, 3.0]), (0, [1.0, 3.0]), (1, [2.0, math.nan]), (1, [2.0, math.nan])], 1, {(1, 1): "nan"}),
        ([(0, None), (0, [1.0, 3.0]), (1, None), (1, [4.0])], 1, {(1, 0): 4.0, (0, 1): 3.0, (0, 0): 1.0}),
        # context-parallel ranks hold parts of one loss
        ([(0, [1.0]), (0, [2.0])], 2, {(0, 0): 3.0}),
        ([(0, [1.0]), (0, [1.0]), (0, [2.0]), (0, [2.0])], 2, {(0, 0): 3.0}),
    ],
)
@pytest.mark.usefixtures("alone")
def test_losses_of_a_skipped_step_are_those_of_its_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[Any], cp: int, losses: dict[tuple[int, int], Any]
) -> None:
    """What every rank says, put together: a loss that several ranks computed is written once, not their sum."""
    from megatron.core import parallel_state

    monkeypatch.setattr(parallel_state, "get_context_parallel_world_size", lambda: cp)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: len(parts))

    def gather(out: list[Any], mine: Any) -> None:
        out[:] = parts

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert guard(tmp_path).judge(6, 1.0, math.inf, None)
    (line,) = (json.loads(x) for x in (tmp_path / "skipped.jsonl").read_text().splitlines())
    found = {(m["data_parallel_rank"], m["micro_batch"]): m["loss"] for m in line["micro_batches"]}
    assert list(found.items()) == list(losses.items())
    assert [m["samples"] for m in line["micro_batches"]] == [[f"6-{d}-{m}"] for d, m in losses]


def test_early_stopping_counts_evaluations_without_improvement() -> None:
    p = Progress(patience=2, min_delta=0.1)
    for step, loss in ((1, 5.0), (2, 4.0), (3, 3.95)):
        p.add(step, loss)
    assert (p.best_step, p.bad, p.exhausted) == (2, 1, False)
    p.add(4, math.nan)
    assert p.exhausted
    assert (p.best_step, p.best_loss) == (2, 4.0)
    never = Progress(patience=0, min_delta=0.0)
    for step in range(9):
        never.add(step, 1.0)
    assert not never.exhausted


def test_automatic_learning_rate() -> None:
    """LLaMA-Factory's cal_lr.py for 16 samples of 1024 tokens, 60% of them answers: 1.49e-5."""
    assert automatic_lr(3e-4, 1024 * 16 * 0.6) == pytest.approx(3e-4 * math.sqrt(9830.4 / 4e6))
    assert automatic_lr(3e-4, 4e6) == 3e-4


@given(st.integers(0, 50), st.integers(51, 200), st.sampled_from(["cosine", "linear"]))
def test_schedules_rise_then_fall_to_the_minimum(warmup: int, total: int, schedule: str) -> None:
    o = OptimSettings(lr=1e-3, min_lr=1e-4, warmup_steps=warmup, schedule=schedule)
    rates = [learning_rate(o, s, total) for s in range(total + 1)]
    assert max(rates) == pytest.approx(1e-3)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[-1] == pytest.approx(1e-4)


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / checkpoint_name(step)
    (path / "weights").mkdir(parents=True)
    (path / "weights/__0_0.distcp").write_bytes(bytes(range(256)) * step)
    (path / "weights/common.pt").write_bytes(b"common")
    write_json(path / MANIFEST, hashes(path))
    return path


def test_a_flipped_byte_is_found_and_the_checkpoint_before_it_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path, 3)
    newest = checkpoint(tmp_path, 6)
    assert newest_sound(tmp_path) == (6, newest)
    data = bytearray((newest / "weights/__0_0.distcp").read_bytes())
    data[777] ^= 1
    (newest / "weights/__0_0.distcp").write_bytes(data)
    assert newest_sound(tmp_path) == (3, tmp_path / checkpoint_name(3))
    said = capfd.readouterr().err
    assert "step-000006/weights/__0_0.distcp is damaged" in said
    assert said.count("\n") == 1
    assert not newest.exists()
    assert (tmp_path / "damaged-step-000006").is_dir()


@pytest.mark.parametrize("name", ["weights/common.pt", MANIFEST])
def test_a_missing_file_is_found(name: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 3)
    (path / name).unlink()
    assert f"{name} is missing" in str(damage(path))
    with pytest.raises(SdrrlError, match="every checkpoint is damaged"):
        newest_sound(tmp_path)


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert newest_sound(tmp_path / "none") is None
