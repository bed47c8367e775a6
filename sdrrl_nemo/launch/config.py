"""Typed configuration of a launch; YAML in configs/clusters/nemo_run_*.yaml fills it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.train.config import RunConfig, check

EXECUTORS = ("local", "slurm", "skypilot")


@dataclass
class SlurmSettings:
    """A Slurm cluster with pyxis, seen from its login node or through ssh."""

    account: str = ""
    partition: str = ""
    time: str = "24:00:00"
    container_image: str = ""
    """Image of configs/clusters/Dockerfile: a registry's name or an enroot ``.sqsh`` file."""
    work: str = ""
    """Folder with models/, data/ and runs/ on storage that every node sees; takes the place of ``work/`` in paths."""
    job_dir: str = ""
    """Folder on such storage for the code, sbatch script and logs of each launch."""
    host: str = ""
    """Login node reached through ssh; empty: this machine is one."""
    user: str = ""
    mounts: list[str] = field(default_factory=list)
    """Further ``/from:/to`` of the container."""
    save_seconds: int = 300
    """SIGTERM comes so long before the time limit; the run saves then and is queued again."""
    parameters: dict[str, str] = field(default_factory=dict)
    """Further sbatch options: {qos: long}."""


@dataclass
class SkypilotSettings:
    """Rented machines; needs the package ``skypilot`` beside NeMo-Run."""

    gpus: str = "A100-80GB"
    infra: str = ""
    """``k8s``, ``gcp/us-central1``, ...; empty: wherever SkyPilot finds room."""
    container_image: str = ""
    use_spot: bool = True
    disk_size: int = 1024
    """GB a machine."""
    cluster_name: str = ""
    setup: str = ""
    """Shell lines before the first start: put models and data into work/."""


@dataclass
class LaunchConfig:
    """One launch: ``tools/launch_nemo_run.py --config FILE``."""

    name: str = "sdrrl"
    config: str = MISSING
    """The training configuration, configs/FILE.yaml."""
    overrides: list[str] = field(default_factory=list)
    """``key=value`` for the training configuration."""
    executor: str = "local"
    """``local``, ``slurm`` or ``skypilot``."""
    nodes: int = 1
    processes_per_node: int = 8
    port: int = 29500
    """Where the nodes meet, on the first of them."""
    retries: int = 3
    """Times a job that ended with an error, or on SIGTERM, is queued again (slurm)."""
    env: dict[str, str] = field(default_factory=dict)
    """Added to, or in place of, what configs/clusters/torchrun_node.sh sets."""
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    skypilot: SkypilotSettings = field(default_factory=SkypilotSettings)


def check_launch(launch: LaunchConfig) -> RunConfig:
    """The training configuration, once it fits the processes; SdrrlError names the key that does not."""
    if launch.executor not in EXECUTORS:
        raise SdrrlError(f"executor: '{launch.executor}' is not one of {', '.join(EXECUTORS)}")
    for key in ("nodes", "processes_per_node", "port"):
        if getattr(launch, key) < 1:
            raise SdrrlError(f"{key}: must be at least 1, is {getattr(launch, key)}")
    if launch.retries < 0:
        raise SdrrlError(f"retries: must not be negative, is {launch.retries}")
    if launch.executor == "local" and launch.nodes > 1:
        raise SdrrlError(
            f"nodes={launch.nodes}: the local executor starts processes of this machine only; use executor=slurm, or "
            "configs/clusters/torchrun_node.sh on each machine"
        )
    if launch.executor == "slurm":
        _check_slurm(launch.slurm)
    run = load_config(RunConfig, launch.config, launch.overrides)
    check(run, launch.nodes * launch.processes_per_node)
    return run


def paths_under(run: RunConfig, work: str) -> list[str]:
    """Overrides that put ``work/...`` of the training configuration under ``work``; other absolute paths stay."""
    named = {"run_dir": run.run_dir, "model.hf_path": run.model.hf_path}
    out = [f"{key}={there}" for key, path in named.items() if (there := _under(work, key, path)) != path]
    for number, entry in enumerate(run.data.blend):
        if not Path(entry.path).is_absolute():
            raise SdrrlError(f"data.blend[{number}].path: '{entry.path}' must be absolute, to be found on the cluster")
    if run.data.path and (there := _under(work, "data.path", run.data.path)) != run.data.path:
        out.append(f"data.path={there}")
    return out


def _under(work: str, key: str, path: str) -> str:
    first, _, rest = path.partition("/")
    if first == "work" and rest:
        return f"{work.rstrip('/')}/{rest}"
    if not Path(path).is_absolute():
        raise SdrrlError(f"{key}: '{path}' must begin with work/ or be absolute, to be found on the cluster")
    return path


def _check_slurm(s: SlurmSettings) -> None:
    for key in ("account", "container_image", "work", "job_dir"):
        if not getattr(s, key):
            hint = "; without containers use configs/clusters/train.sbatch" if key == "container_image" else ""
            raise SdrrlError(f"slurm.{key}: NeMo-Run needs it to start a Slurm job{hint}")
    for key in ("work", "job_dir"):
        if not Path(getattr(s, key)).is_absolute():
            raise SdrrlError(f"slurm.{key}: '{getattr(s, key)}' must be an absolute path on the cluster")
    if s.host and not s.user:
        raise SdrrlError(f"slurm.user: name the user for ssh to {s.host}")
