"""A launch as NeMo-Run sees it: the recipe as a script, torchrun as launcher, an executor for the machines."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import zlib
from typing import Any

import nemo_run as run
from nemo_run.core.execution.launcher import Torchrun
from torchx.specs import AppState

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.private import dry_run_request, job_roles
from sdrrl_nemo.launch.config import LaunchConfig, check_launch, paths_under

RECIPE = "recipes/sdrrl_pretrain.py"
ENVIRONMENT = {
    "NCCL_DEBUG": "WARN",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",
    "OMP_NUM_THREADS": "8",
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "240",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}
"""As configs/clusters/torchrun_node.sh sets it; the reasons are there."""
CODE = "/nemo_run/code"
"""Where NeMo-Run puts the commit of this checkout in a container."""


def script(launch: LaunchConfig) -> run.Script:
    """The recipe with its arguments, once they fit the processes and the machines."""
    config = check_launch(launch)
    moved = paths_under(config, launch.slurm.work) if launch.executor == "slurm" else []
    return run.Script(path=RECIPE, args=["--config", launch.config, *launch.overrides, *moved], entrypoint="python")


def executor(launch: LaunchConfig) -> Any:
    """The NeMo-Run executor of a checked launch."""
    make = {"local": _local, "slurm": _slurm, "skypilot": _skypilot}[launch.executor]
    launcher = Torchrun(rdzv_port=launch.port, rdzv_id=zlib.crc32(launch.name.encode()) % 1_000_000)
    return make(launch, {"launcher": launcher, "retries": launch.retries}, {**ENVIRONMENT, **launch.env})


def _local(launch: LaunchConfig, common: dict[str, Any], env: dict[str, str]) -> run.LocalExecutor:
    bin_first = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    env = {
        "PYTHONPATH": f"{os.getcwd()}:{os.getcwd()}/kernels",
        "PATH": bin_first,
        **env,
    }  # torchrun of this interpreter
    return run.LocalExecutor(ntasks_per_node=launch.processes_per_node, env_vars=env, **common)


def _slurm(launch: LaunchConfig, common: dict[str, Any], env: dict[str, str]) -> run.SlurmExecutor:
    s = launch.slurm
    env = {"PYTHONPATH": f"{CODE}:{CODE}/kernels:/opt/sdrrl-deps", **env}
    tunnel = (
        run.SSHTunnel(host=s.host, user=s.user, job_dir=s.job_dir) if s.host else run.LocalTunnel(job_dir=s.job_dir)
    )
    return run.SlurmExecutor(
        account=s.account,
        partition=s.partition or None,
        job_name_prefix="sdrrl.",
        time=s.time,
        nodes=launch.nodes,
        ntasks_per_node=launch.processes_per_node,
        gpus_per_node=launch.processes_per_node,
        exclusive=True,
        signal=f"TERM@{s.save_seconds}",
        container_image=s.container_image,
        container_mounts=[f"{s.work}:{s.work}", *s.mounts],
        container_env=sorted(env),  # pyxis lets the image's values win otherwise
        additional_parameters=dict(s.parameters) or None,
        srun_args=["--wait=600", "--kill-on-bad-exit=0"],  # ranks of other nodes may still be saving
        tunnel=tunnel,
        env_vars=env,
        packager=run.GitArchivePackager(),
        **common,
    )


def _skypilot(launch: LaunchConfig, common: dict[str, Any], env: dict[str, str]) -> run.SkypilotExecutor:
    s = launch.skypilot
    try:
        import sky  # noqa: F401
    except ImportError as e:
        raise SdrrlError(
            f"executor: skypilot needs the package 'skypilot' ({e}); install it with: pip install skypilot"
        ) from None
    return run.SkypilotExecutor(
        gpus=s.gpus,
        gpus_per_node=launch.processes_per_node,
        num_nodes=launch.nodes,
        infra=s.infra or None,
        container_image=s.container_image or None,
        use_spot=s.use_spot,
        disk_size=s.disk_size,
        cluster_name=s.cluster_name or launch.name,
        setup=s.setup or None,
        env_vars={"PYTHONPATH": f"{CODE}:{CODE}/kernels:/opt/sdrrl-deps", **env},
        packager=run.GitArchivePackager(),
        **common,
    )


def dry_run(launch: LaunchConfig) -> str:
    """What would be started: the command (local), the sbatch script (slurm), the task (skypilot). Starts nothing."""
    with tempfile.TemporaryDirectory() as folder, run.Experiment(launch.name, base_dir=folder) as experiment:
        experiment.add(script(launch), executor=executor(launch), name=launch.name)
        experiment.dryrun(log=False, delete_exp_dir=False)
        job = experiment.jobs[0]
        request = dry_run_request(job)
        if launch.executor == "slurm":
            return str(request.materialize())
        if launch.executor == "skypilot":
            return str(request.task.to_yaml_config()["run"])
        role = job_roles(job)[0]
        return shlex.join([role.entrypoint, *(shlex.split(a)[0] for a in role.args)])


def start(launch: LaunchConfig) -> None:
    """Start it; a local run is waited for, its output shown. A cluster's job goes on when this process ends."""
    local = launch.executor == "local"
    with run.Experiment(launch.name) as experiment:
        experiment.add(script(launch), executor=executor(launch), name=launch.name, tail_logs=local)
        experiment.run(detach=not local, tail_logs=local)
    if local and any(job.state != AppState.SUCCEEDED for job in experiment.jobs):  # known once the experiment is left
        raise SdrrlError(
            f"{launch.name}: the run did not succeed; what it said is above and in its experiment's folder"
        )
