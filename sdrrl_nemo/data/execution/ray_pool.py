"""Workers as Ray actors: on this machine, or wherever the cluster has room."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import time
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import require
from sdrrl_nemo.common.quiet import quiet_third_parties
from sdrrl_nemo.data.execution.config import ExecutionConfig, Resources
from sdrrl_nemo.data.execution.executor import Pool
from sdrrl_nemo.data.execution.worker import Reply, Worker

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
CARRIED = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "HF_HUB_OFFLINE", "HF_HOME", "SDRRL_VERBOSE")
"""Environment that workers on other machines need as it is here."""
PATIENCE = 60.0
"""Seconds without any worker before the user hears what is missing."""


class QuietWorker(Worker):
    """A worker in an actor process of Ray."""

    def __init__(self, engines_kept: int) -> None:
        quiet_third_parties()
        super().__init__(engines_kept)


class RayPool(Pool[Any]):
    """Actors without restarts of Ray's own: a dead one is replaced here, so that its shard is counted and retried."""

    def __init__(self, resources: Resources, config: ExecutionConfig) -> None:
        self.ray = connect(config, resources)
        self.resources, self.engines_kept = resources, config.engines_kept
        self._refs: dict[Any, Any] = {}
        self._actor = self.ray.remote(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_restarts=0,
            max_task_retries=0,
            runtime_env=_environment(resources) if config.address else None,
        )(QuietWorker)

    def start(self) -> Any:
        return self._actor.remote(self.engines_kept)

    def call(self, worker: Any, method: str, *arguments: Any) -> None:
        self._refs[worker] = getattr(worker, method).remote(*arguments)

    def wait(self, workers: list[Any]) -> list[tuple[Any, Reply | str]]:
        refs = {self._refs[w]: w for w in workers}
        begin, told = time.monotonic(), False
        while True:
            ready, _ = self.ray.wait(list(refs), num_returns=1, timeout=PATIENCE)
            if ready:
                return [(refs[ref], self._reply(ref)) for ref in ready]
            if not told and time.monotonic() - begin >= PATIENCE:
                told = True
                self._tell()

    def _reply(self, ref: Any) -> Reply | str:
        try:
            reply: Reply = self.ray.get(ref)
            return reply
        except self.ray.exceptions.RayActorError as e:
            return " ".join(str(e).split())[:300]

    def _tell(self) -> None:
        free, r = self.ray.available_resources(), self.resources
        if free.get("CPU", 0) >= r.cpus and free.get("GPU", 0) >= r.gpus:
            return  # room enough: the workers are busy or loading
        have = self.ray.cluster_resources()
        print(
            f"waiting: {r.workers} workers ask for {r.cpus:g} CPU and {r.gpus:g} GPU each; the Ray cluster has "
            f"{have.get('CPU', 0):g} CPU and {have.get('GPU', 0):g} GPU",
            file=sys.stderr,
            flush=True,
        )

    def stop(self, worker: Any) -> None:
        self._refs.pop(worker, None)
        self.ray.kill(worker, no_restart=True)


def _environment(resources: Resources) -> dict[str, Any]:
    """Variables for workers on other machines; those of a Ray of our own inherit them."""
    threads = str(max(1, int(resources.cpus)))
    carried = {name: os.environ[name] for name in CARRIED if name in os.environ}
    return {"env_vars": {"OMP_NUM_THREADS": threads, **carried}}


def connect(config: ExecutionConfig, resources: Resources) -> Any:
    """The ``ray`` module, joined to ``config.address`` or to a Ray of our own on this machine."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    ray = require("ray", "ray", "scale")
    if ray.is_initialized():
        return ray
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if config.address:
            ray.init(address=config.address, **common)
        else:
            # As many logical cores as the workers ask for: the operating system shares the real ones out.
            cpus = max(os.cpu_count() or 1, int(resources.workers * resources.cpus + 0.999))
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **common)
    except (ConnectionError, OSError, RuntimeError, ValueError) as e:
        where = config.address or "this machine"
        raise SdrrlError(
            f"execution.address: no Ray at {where} ({' '.join(str(e).split())[:200]}); start it with 'ray start', or "
            "leave execution.address empty for one machine; a cluster that asks for a token wants RAY_AUTH_MODE=token "
            "and its RAY_AUTH_TOKEN in the environment"
        ) from None
    atexit.register(_leave, ray)
    return ray


def _leave(ray: Any) -> None:
    with contextlib.suppress(Exception):  # the interpreter is ending; Ray's own processes end with it
        ray.shutdown()
