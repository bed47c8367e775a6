"""The NeMo-Run entry: exactly what it would start, and what it refuses."""

from __future__ import annotations

import importlib.util
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.launch.config import LaunchConfig, check_launch, paths_under
from sdrrl_nemo.launch.nemo_run import dry_run
from sdrrl_nemo.train.config import BlendEntry, RunConfig
from tests.launch import ROOT

FOLDER = ROOT / "configs/clusters"


@pytest.fixture(autouse=True)
def _at_the_checkout(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NeMo-Run packs the checkout it stands in, through a library that reads stdin, which pytest forbids."""
    monkeypatch.chdir(ROOT)
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield


@pytest.mark.parametrize("path", sorted(FOLDER.glob("nemo_run_*.yaml")), ids=lambda p: p.stem)
def test_shipped_launches_fit_their_training_configuration(path: Path) -> None:
    assert check_launch(load_config(LaunchConfig, path)).run_dir


def test_local_command() -> None:
    said = dry_run(load_config(LaunchConfig, FOLDER / "nemo_run_local.yaml", ["overrides=[optim.lr=1e-4]"]))
    meeting = zlib.crc32(b"demo-por") % 1_000_000
    assert said == (
        f"torchrun --rdzv-backend c10d --rdzv-endpoint localhost:0 --rdzv-id {meeting} --nnodes 1 --nproc-per-node 2 "
        "--node-rank 0 --tee 3 recipes/sdrrl_pretrain.py --config configs/demo_por.yaml optim.lr=1e-4"
    )


def test_slurm_job(tmp_path: Path) -> None:
    changes = ["nodes=8", "config=configs/llama2_7b_a800x64.yaml", f"slurm.job_dir={tmp_path}", "slurm.partition=gpu"]
    job = dry_run(load_config(LaunchConfig, FOLDER / "nemo_run_slurm.yaml", [*changes, "slurm.parameters={qos: long}"]))
    lines = job.splitlines()
    options = "account=my-account partition=gpu nodes=8 ntasks-per-node=1 gpus-per-node=8 qos=long signal=TERM@300"
    assert {f"#SBATCH --{option}" for option in [*options.split(), "exclusive", "time=24:00:00"]} <= set(lines)
    (command,) = [line for line in lines if line.startswith("srun ")]
    meeting = zlib.crc32(b"llama2-7b") % 1_000_000
    assert command.endswith(
        f" torchrun --rdzv-backend c10d --rdzv-endpoint $head_node_ip:29500 --rdzv-id {meeting} --nnodes 8 "
        "--nproc-per-node 8 --node-rank $SLURM_NODEID --tee 3 recipes/sdrrl_pretrain.py "
        "--config configs/llama2_7b_a800x64.yaml run_dir=/shared/sdrrl/work/runs/llama2_7b_x64 "
        "model.hf_path=/shared/sdrrl/work/models/Llama-2-7b-chat-hf data.path=/shared/sdrrl/work/data/paper_eng/packed"
    )
    assert "--container-mounts /shared/sdrrl/work:/shared/sdrrl/work," in command
    assert (
        "export PYTHONPATH=/nemo_run/code:/nemo_run/code/kernels:/opt/sdrrl-deps" in lines
    )  # the commit sent, not the image's copy
    assert "export TORCHX_MAX_RETRIES=3" in lines and 'scontrol requeue "$SLURM_JOB_ID"' in job


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("local", ["executor=ssh"], "executor: 'ssh' is not one of local, slurm, skypilot"),
        ("local", ["nodes=2"], "nodes=2: the local executor starts processes of this machine only"),
        ("local", ["processes_per_node=3"], r"trainer.tp=2 x .* does not divide the 3 processes"),
        ("local", ["overrides=[trainer.tpp=2]"], "unknown key 'trainer.tpp'"),
        ("local", ["retries=-1"], "retries: must not be negative"),
        ("slurm", ["slurm.container_image=''"], "slurm.container_image: .* without containers use .*train.sbatch"),
        ("slurm", ["slurm.work=work"], "slurm.work: 'work' must be an absolute path"),
        ("slurm", ["slurm.host=login.example.org"], "slurm.user: name the user for ssh to login.example.org"),
    ],
)
def test_refusals(file: str, changes: list[str], message: str) -> None:
    with pytest.raises(SdrrlError, match=message):
        check_launch(load_config(LaunchConfig, FOLDER / f"nemo_run_{file}.yaml", changes))


def test_relative_paths_outside_work_are_refused() -> None:
    run = RunConfig(run_dir="runs/mine")
    with pytest.raises(SdrrlError, match="run_dir: 'runs/mine' must begin with work/ or be absolute"):
        paths_under(run, "/shared/work")


def test_paths_of_a_blend_must_be_absolute() -> None:
    run = RunConfig(run_dir="work/runs/mine")
    run.model.hf_path, run.data.blend = "/models/x", [BlendEntry("/data/por"), BlendEntry("work/data/jpn")]
    with pytest.raises(SdrrlError, match=r"data.blend\[1\].path: 'work/data/jpn' must be absolute"):
        paths_under(run, "/shared/work")
    run.data.blend.pop()
    assert paths_under(run, "/shared/work") == ["run_dir=/shared/work/runs/mine"]


@pytest.mark.skipif(importlib.util.find_spec("sky") is not None, reason="skypilot is installed")
def test_skypilot_says_what_is_missing() -> None:
    with pytest.raises(SdrrlError, match="needs the package 'skypilot'"):
        dry_run(load_config(LaunchConfig, FOLDER / "nemo_run_skypilot.yaml"))
