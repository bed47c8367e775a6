"""Launch plans: tuned ones belong to one card, one Triton and one source; without them the defaults hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sdrrl_kernels import plans
from sdrrl_kernels.cross_entropy_triton import resident_tile, stream_tile
from sdrrl_kernels.plans import Plan
from sdrrl_nemo.common.errors import SdrrlError
from tests.unit.kernels.loss_cases import assert_no_worse_than_torch, make
from tools.bench.kernels import tune_plans

COLUMNS = 49152
DEFAULT = Plan(4096, 8)
FAST = Plan(2048, 4)


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine that seems to have a GPU, with an empty cache folder."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA Test Card")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(plans.FOLDER, raising=False)
    monkeypatch.delenv("RANK", raising=False)
    plans._resolved.cache_clear()
    yield tmp_path / "sdrrl" / "kernel_plans.json"
    plans._resolved.cache_clear()


def _fake(plan: Plan) -> float:
    return {FAST: 1.0, DEFAULT: 1.2}.get(plan, 2.0)


def _tuned(path: Path, plan: Plan = FAST, device: str = "") -> None:
    plans.write(path, device or plans.device_key(), {plans.entry("stream", plans.bucket(COLUMNS), 2): plan})


def test_the_fastest_candidate_is_kept_for_the_bucket_of_its_shape(
    card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plans.tune("stream", COLUMNS, 2, DEFAULT, _fake) == (FAST, 1.0)
    assert plans.tune("stream", COLUMNS, 2, DEFAULT, lambda p: 1.0 if p == FAST else 1.02)[0] == DEFAULT
    assert stream_tile(COLUMNS, 2)[:2] == DEFAULT
    _tuned(card)
    assert stream_tile(COLUMNS, 2)[:2] == stream_tile(40000, 2)[:2] == FAST
    assert stream_tile(128256, 2)[:2] == stream_tile(COLUMNS, 4)[:2] == DEFAULT
    said = capsys.readouterr().err.splitlines()
    assert said[1] == ("loss kernel, rows up to 65536 x 2 bytes, stream: tile 2048, 4 warps (tuned; NVIDIA Test Card)")
    assert len(said) == 4 and sum("(default;" in line for line in said) == 3  # each shape once a process
    assert not list(card.parent.glob("*.tmp"))


def test_plans_of_another_card_or_source_are_not_taken(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tuned(card, device=plans.device_key().replace("Test Card", "Other Card"))
    _tuned(card, device=plans.device_key()[:-1] + "!")
    assert stream_tile(COLUMNS, 2)[:2] == DEFAULT
    _tuned(card)
    assert len(json.loads(card.read_text())) == 3 and stream_tile(COLUMNS, 2)[:2] == FAST
    monkeypatch.setenv(plans.FOLDER, "off")
    plans._resolved.cache_clear()
    assert stream_tile(COLUMNS, 2)[:2] == DEFAULT
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv(plans.FOLDER)
    assert stream_tile(COLUMNS, 2)[:2] == DEFAULT


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"a": {"stream/65536/2": {"block": 48, "warps": 4}}}', '{"a": {"b": 1}}']
)
def test_a_damaged_file_is_said_and_replaced(card: Path, damage: str) -> None:
    card.parent.mkdir()
    card.write_text(damage)
    with pytest.warns(UserWarning, match=r"kernel_plans\.json: no tuned plans are taken from it"):
        assert stream_tile(COLUMNS, 2)[:2] == DEFAULT
    _tuned(card)
    assert stream_tile(COLUMNS, 2)[:2] == FAST


def test_a_tile_that_does_not_hold_the_row_is_never_taken(card: Path) -> None:
    default = resident_tile(32000, 2, False)
    assert default is not None and default.block == 32768
    plans.write(card, plans.device_key(), {plans.entry("resident", 32768, 2): Plan(16384, 16)})
    assert resident_tile(32000, 2, False) == default
    plans.write(card, plans.device_key(), {plans.entry("resident", 32768, 2): Plan(32768, 16)})
    assert resident_tile(32000, 2, False) == default._replace(warps=16)


def test_every_candidate_gives_each_thread_a_word_of_the_tile() -> None:
    for columns, itemsize in ((640, 4), (32000, 2), (262144, 2)):
        default = Plan(*stream_tile(columns, itemsize)[:2])
        tried = plans.candidates("stream", columns, itemsize, default)
        assert tried[0] == default and len(set(tried)) == len(tried)
        assert all(p.block >= 32 * p.warps * 16 // itemsize for p in tried[1:])


@pytest.mark.usefixtures("interpreter")
def test_another_plan_is_as_exact() -> None:
    for plan in plans.candidates("stream", 2500, 4, Plan(4096, 8))[1:3]:
        with plans.forced("stream", plan):
            assert stream_tile(2500, 4)[:2] == plan
            assert_no_worse_than_torch(make(4, 2500, torch.float32), "triton", per_token=False)


def test_tuning_writes_what_the_timer_says(
    card: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune_plans, "milliseconds", lambda kind, case, plan: _fake(plan))
    monkeypatch.setattr(tune_plans, "Case", lambda *_: None)
    assert tune_plans.main(["--vocab", str(2 * COLUMNS), "--tp", "2"]) == 0
    assert stream_tile(COLUMNS, 2)[:2] == FAST
    assert "tile 2048, 4 warps (1.000 ms; default 4096, 8 warps; NVIDIA Test Card)" in capsys.readouterr().out


def test_tuning_refuses_what_it_cannot_do(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SdrrlError, match="must be a multiple of --tp"):
        tune_plans.main(["--vocab", "32003", "--tp", "2"])
    monkeypatch.setenv(plans.FOLDER, "off")
    with pytest.raises(SdrrlError, match="no place to keep plans"):
        tune_plans.main(["--vocab", "32000"])
    monkeypatch.delenv(plans.FOLDER)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SdrrlError, match="torch sees no CUDA device"):
        tune_plans.main(["--vocab", "32000"])
