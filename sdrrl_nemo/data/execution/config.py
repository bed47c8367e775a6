"""Section ``execution`` of the preprocessing configuration. Nothing in it changes a byte of a finished result."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from sdrrl_nemo.common.errors import SdrrlError, suggest

BACKENDS = ("local", "ray")
ON_ERROR = ("reject", "fail")


@dataclass
class StageExecution:
    """What one stage asks for in place of the run's own numbers; None: the run's."""

    workers: int | None = None
    cpus_per_worker: float | None = None
    gpus_per_worker: float | None = None


@dataclass
class ExecutionConfig:
    """Where and how shards are worked on (docs/scaling.md)."""

    backend: str = "local"
    """``local``: this process, or a pool of processes on this machine; ``ray``: actors of a Ray cluster."""
    workers: int = 1
    address: str = ""
    """Ray only. Empty: a Ray of our own on this machine; ``auto`` or ``host:port``: the cluster that runs there."""
    cpus_per_worker: float = 1.0
    """Cores a worker reserves with Ray, and its number of OpenMP threads unless OMP_NUM_THREADS is set."""
    gpus_per_worker: float = 0.0
    retries: int = 3
    """How often a shard is tried again after its worker died, or after a failing disk or network."""
    max_in_flight: int = 0
    """Shards in memory: with workers, or read ahead for them; 0: two per worker."""
    engines_kept: int = 3
    """Loaded engines that a worker keeps from one stage to the next."""
    on_error: str = "reject"
    """A row on which a stage raises is dropped and counted (``reject``), or stops the run (``fail``)."""
    max_failed_fraction: float = 0.01
    """The run stops when more than this share of a stage's rows, rounded up to whole rows, is dropped that way."""
    stages: dict[str, StageExecution] = field(default_factory=dict)
    """Stage name (``translate``: for every pair; ``translate.eng-jpn``; ``*quality``) -> what it asks for."""


@dataclass(frozen=True)
class Resources:
    """Workers of one stage and what each of them reserves."""

    workers: int
    cpus: float
    gpus: float


def resources_of(config: ExecutionConfig, stage: str) -> Resources:
    """What ``stage`` gets: later entries of ``stages`` that match its name, or its name without the pair, win."""
    found = Resources(config.workers, config.cpus_per_worker, config.gpus_per_worker)
    for pattern, own in config.stages.items():
        if fnmatchcase(stage, pattern) or fnmatchcase(stage.partition(".")[0], pattern):
            found = Resources(
                found.workers if own.workers is None else own.workers,
                found.cpus if own.cpus_per_worker is None else own.cpus_per_worker,
                found.gpus if own.gpus_per_worker is None else own.gpus_per_worker,
            )
    return found


def allowed_failures(config: ExecutionConfig, rows: int) -> int:
    """How many of ``rows`` may be dropped for errors."""
    return 0 if config.on_error == "fail" else math.ceil(config.max_failed_fraction * rows)


def validate_execution(config: ExecutionConfig) -> None:
    """Check what types cannot say; SdrrlError names the key."""
    for key, value, known in (("backend", config.backend, BACKENDS), ("on_error", config.on_error, ON_ERROR)):
        if value not in known:
            raise SdrrlError(f"execution.{key}: unknown value '{value}'{suggest(value, known)}")
    if not 0.0 <= config.max_failed_fraction <= 1.0:
        raise SdrrlError(f"execution.max_failed_fraction: {config.max_failed_fraction} is not between 0 and 1")
    if config.retries < 0 or config.max_in_flight < 0 or config.engines_kept < 0:
        raise SdrrlError("execution: retries, max_in_flight and engines_kept must be 0 or more")
    if config.address and config.backend != "ray":
        raise SdrrlError("execution.address: only backend 'ray' joins a cluster; set execution.backend=ray")
    for stage in ("", *config.stages):
        where = f"execution.stages.{stage}" if stage else "execution"
        found = resources_of(config, stage)
        if found.workers < 1 or found.cpus < 0 or found.gpus < 0:
            raise SdrrlError(f"{where}: workers must be at least 1, cpus_per_worker and gpus_per_worker at least 0")
        if config.backend == "local" and found.workers > 1 and found.gpus > 0:
            raise SdrrlError(
                f"{where}: backend 'local' does not share GPUs out among workers; set execution.backend=ray, which "
                "does so on one machine too"
            )
