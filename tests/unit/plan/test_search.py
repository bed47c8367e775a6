"""The search: what the recipe would refuse is never proposed, what is proposed fits, and bad input is one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.cost.gpus import gpu
from sdrrl_nemo.plan.layout import Layout, misfit
from sdrrl_nemo.plan.search import Planner
from sdrrl_nemo.plan.workload import Workload, workload
from sdrrl_nemo.train.config import BlendEntry, RunConfig, check
from tools.plan import main

LLAMA_7B = ModelShape(32, 4096, 32, 32, 128, 11008, 32000)


def configuration(global_batch_size: int = 32, distributed: bool = True) -> RunConfig:
    config = RunConfig(run_dir="run")
    config.model.hf_path = "none/Llama-2-7b-hf"
    config.data.path = "none"
    config.trainer.global_batch_size = global_batch_size
    config.trainer.epochs = 4
    config.optim.use_distributed_optimizer = distributed
    return config


def planner(shape: ModelShape = LLAMA_7B, card: str = "a800-80g", **changes: bool | int) -> Planner:
    data = Workload(row_tokens=2048, rows=1000, samples=5000, tokens=1_900_000, source="test")
    return Planner(configuration(**changes), shape, gpu(card), data)  # type: ignore[arg-type]


def test_every_proposal_is_accepted_by_the_recipe_and_fits() -> None:
    p = planner()
    plans = p.plans(8)
    assert len(plans) > 20
    speeds = [plan.tokens_per_second for plan in plans]
    alike = [s for s in speeds if s > 0.99 * max(speeds)]
    assert speeds[: len(alike)] == alike  # these first, the simplest of them at the top
    assert speeds[len(alike) :] == sorted(speeds[len(alike) :], reverse=True)
    assert plans[0].layout.pp == min(plan.layout.pp for plan in plans[: len(alike)])
    for plan in plans:
        found = plan.layout
        assert found.gpus == 8
        assert found.global_batch_size == 32
        trainer = replace(
            p.config.trainer,
            tp=found.tp,
            pp=found.pp,
            vpp=found.vpp,
            cp=found.cp,
            sequence_parallel=found.sequence_parallel,
            micro_batch_size=found.micro_batch_size,
        )
        assert check(replace(p.config, trainer=trainer), 8) == found.dp
        assert misfit(LLAMA_7B, found) is None
        assert plan.memory.total <= 80e9
        assert found.micro_batch_size <= p.largest_micro_batch(found)


def test_largest_micro_batch_is_the_last_that_fits() -> None:
    p = planner()
    layout = Layout(dp=8, accumulation=4)
    largest = p.largest_micro_batch(layout)
    assert 1 <= largest < 4
    for micro in (1, 2, 4):
        fits = p.predict(replace(layout, micro_batch_size=micro, accumulation=4 // micro)).fits
        assert fits == (micro <= largest)


def test_tp_and_pp_divide_what_they_split() -> None:
    odd = ModelShape(30, 576, 9, 3, 64, 1536, 49152, tied=True)
    sizes = {(p.layout.tp, p.layout.pp * p.layout.vpp) for p in planner(odd).plans(6)}
    assert {tp for tp, _ in sizes} == {1, 3}
    assert all(30 % pp == 0 for _, pp in sizes)


def test_hours_are_steps_times_seconds() -> None:
    p = planner()
    plan = p.predict(Layout(dp=8, accumulation=4))
    assert plan.hours == pytest.approx(4 * 32 * plan.step.total / 3600)  # 1000 rows by 32: 32 steps an epoch
    useful = 32 * 2048 * 1_900_000 / (1000 * 2048)
    assert plan.tokens_per_second == pytest.approx(useful / plan.step.total)


def test_more_gpus_and_faster_links_are_not_slower() -> None:
    for more in (16, 32):
        fewer, many = (planner(global_batch_size=128).plans(n)[0] for n in (8, more))
        assert many.tokens_per_second > fewer.tokens_per_second
    layout = Layout(tp=8, accumulation=32)
    assert planner(card="a100-80g").predict(layout).step.total < planner().predict(layout).step.total


@pytest.mark.parametrize(
    ("changes", "gpus", "says"),
    [
        ({"distributed": False}, 1, "2 GPUs with optim.use_distributed_optimizer=true would do"),
        ({"global_batch_size": 7}, 11, "the recipe accepts no layout of so many GPUs"),
    ],
)
def test_nothing_fits(changes: dict[str, int], gpus: int, says: str) -> None:
    with pytest.raises(SdrrlError, match=says):
        planner(**changes).result(gpus)


def test_lora_needs_less_of_everything_and_never_more_than_the_peak() -> None:
    full, lora = planner(), planner()
    lora.config.lora.rank = 16
    layout = Layout(dp=8, accumulation=4)
    a, b = full.predict(layout), lora.predict(layout)
    assert b.step.matrices == pytest.approx(2 / 3 * a.step.matrices)  # frozen weights have no gradient
    assert b.step.total < a.step.total
    assert b.memory.total < a.memory.total / 2
    assert 0.1 < b.mfu < 0.75


def test_a_layout_the_recipe_refuses_is_said_to_be() -> None:
    p = planner()
    p.config.trainer.tp = 3
    result = p.result(8)
    assert result.configured is None
    assert "does not divide the 8 processes" in result.refused
    assert result.plans


def test_amount_of_data(tmp_path: Path) -> None:
    config = configuration()
    unknown = workload(config)
    assert (unknown.rows, unknown.steps(config), unknown.pairs) == (0, 0, 2049 / 2)
    given = workload(config, samples=1000, sample_tokens=190, row=1024)
    assert (given.tokens, given.rows, given.sample_tokens) == (190_000, 196, 190)  # 190,000 / (1024 x 0.95)
    assert given.steps(config) == 4 * 7
    assert given.row_of(2) > 1024
    config.data.path = str(tmp_path)
    facts = {"packs": 10, "samples": 40, "tokens": 18_000, "seq_length": 2000}
    (tmp_path / "train.manifest.json").write_text(json.dumps(facts))
    found = workload(config)
    assert (found.row_tokens, found.rows, found.sample_tokens, found.filled) == (2000, 10, 450, 0.9)
    with pytest.raises(SdrrlError, match="--samples needs --sample-length"):
        workload(config, samples=3)


def test_amount_of_data_of_a_blend(tmp_path: Path) -> None:
    config, facts = configuration(), {"packs": 10, "samples": 40, "tokens": 18_000, "seq_length": 2000}
    for name in ("por", "jpn"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.manifest.json").write_text(json.dumps({**facts, "subsets": {}}))
    config.data.path, config.data.blend = "", [BlendEntry(str(tmp_path / name)) for name in ("por", "jpn")]
    found = workload(config)
    assert (found.row_tokens, found.rows, found.samples, found.tokens) == (2000, 20, 80, 36_000)
    config.data.sampling, config.data.epoch_rows = "equal", 30
    found = workload(config)
    assert (found.rows, found.samples, found.tokens, found.filled) == (30, 120, 54_000, 0.9)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    settings = {
        "run_dir": "run",
        "model": {"hf_path": "work/models/Llama-2-7b-chat-hf-not-here"},
        "data": {"path": "none"},
        "trainer": {"global_batch_size": 32, "epochs": 4},
        "optim": {"use_distributed_optimizer": True},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_command(config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.json"
    tokens = ["--tokens", "1000000", "--seq-length", "1024"]
    assert run(main, ["--config", str(config_file), "--gpus", "4", *tokens, "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "llama-2-7b" in printed
    assert "not measured on a GPU" in printed
    found = json.loads(out.read_text())
    assert found["parameters"] == 6_738_415_616
    assert found["best"][0]["overrides"] in printed
    assert found["best"][0]["memory_bytes"]["total"] <= 80e9
    assert found["steps"] == 4 * 33  # 1e6 / (1024 x 0.95) = 1028 rows, 33 steps an epoch


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gpu", "tpu"], "'tpu' is not one of a100-40g"),
        (["--gpus", "0"], "--gpus and --top must be at least 1"),
        (["--hf-config", "gpt-9"], "give --hf-config a folder"),
        (["--gpus", "1", "--gpu", "l40s"], "nothing fits"),
        (["trainer.tensor=2"], "unknown key 'trainer.tensor'"),
    ],
)
def test_bad_input_is_one_sentence(
    config_file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert run(main, ["--config", str(config_file), *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
