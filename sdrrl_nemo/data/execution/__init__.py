"""Running stages over workers: configuration, shards, and the executors (docs/scaling.md)."""

from __future__ import annotations

from sdrrl_nemo.data.execution.config import (
    ExecutionConfig,
    Resources,
    StageExecution,
    resources_of,
    validate_execution,
)
from sdrrl_nemo.data.execution.executor import Executor, Pool, PoolExecutor, SerialExecutor
from sdrrl_nemo.data.execution.shard import Task
from sdrrl_nemo.data.execution.stage import Outcome, Row, Stage, StreamStage

__all__ = [
    "ExecutionConfig",
    "Executor",
    "Outcome",
    "PoolExecutor",
    "Row",
    "SerialExecutor",
    "Stage",
    "StageExecution",
    "StreamStage",
    "Task",
    "make_executor",
    "validate_execution",
]


def make_executor(config: ExecutionConfig) -> Executor:
    """The executor that ``config`` asks for; nothing is started before the first shard."""
    validate_execution(config)
    if config.backend == "ray":
        return PoolExecutor(config, lambda resources: _ray_pool(config, resources))
    if config.workers == 1 and not any((own.workers or 1) > 1 for own in config.stages.values()):
        return SerialExecutor()
    return _LocalExecutor(config)


class _LocalExecutor(PoolExecutor):
    """Processes of this machine; stages that ask for one worker run in this process."""

    def __init__(self, config: ExecutionConfig) -> None:
        super().__init__(config, lambda resources: _process_pool(config, resources))
        self._serial = SerialExecutor()

    def map(self, task, shards):  # type: ignore[no-untyped-def]
        one = resources_of(self.config, task.stage.name).workers == 1
        return self._serial.map(task, shards) if one else super().map(task, shards)


def _ray_pool(config: ExecutionConfig, resources: Resources) -> Pool:  # type: ignore[type-arg]
    from sdrrl_nemo.data.execution.ray_pool import RayPool

    return RayPool(resources, config)


def _process_pool(config: ExecutionConfig, resources: Resources) -> Pool:  # type: ignore[type-arg]
    from sdrrl_nemo.data.execution.processes import ProcessPool

    return ProcessPool(resources, config.engines_kept)
