"""Run under torchrun: train tiny configurations with the real recipe and count the bytes its tensors hold.

torchrun --nproc-per-node N tests/distributed/plan_worker.py CONFIG.yaml OUTPUT_FOLDER 'key=value ...' '...'

Every rank writes OUTPUT_FOLDER/<number of the configuration>-<rank>.json. Activations are what autograd keeps for the
backward pass, of all micro-batches in flight, at the moment it keeps most; counted by storage, without parameters.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.train.config import RunConfig
from tests.distributed.fit_worker import forget_run


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of each storage under its address."""
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()}


class _Kept:
    """Stands in autograd's graph for a saved tensor; its bytes count until the graph lets go of it."""

    def __init__(self, tensor: Tensor, ledger: Ledger) -> None:
        self.tensor, self.ledger = tensor, ledger
        ledger.add(tensor)

    def __del__(self) -> None:
        self.ledger.remove(self.tensor)


class Ledger:
    """Bytes of the storages autograd holds now and held at most, each counted once; ``ignored``: parameters."""

    def __init__(self) -> None:
        self.ignored: set[int] = set()
        self.holders: dict[int, int] = {}
        self.now = self.peak = 0

    def add(self, tensor: Tensor) -> None:
        for address, size in storages([tensor]).items():
            if address not in self.ignored:
                self.now += 0 if self.holders.get(address) else size
                self.holders[address] = self.holders.get(address, 0) + 1
        self.peak = max(self.peak, self.now)

    def remove(self, tensor: Tensor) -> None:
        for address, size in storages([tensor]).items():
            if address not in self.ignored:
                self.holders[address] -= 1
                self.now -= 0 if self.holders[address] else size


class Measured:
    """What the hooks saw: peak of the activations, parameters, gradients and optimiser state, in bytes."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.static: dict[str, int] = {}

    def count_saves(self) -> None:
        """From now on: bytes of the tensors this rank hands to Megatron's writer, for the latest checkpoint."""
        from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync as Writer

        prepare = getattr(Writer.prepare_write_data, "plain", Writer.prepare_write_data)

        def counted(writer: Any, *args: Any, **kwargs: Any) -> None:
            prepare(writer, *args, **kwargs)
            tensors = [tensor for _, _, (_, data) in writer.write_buckets or () for _, tensor in data]
            self.static["saved"] = sum(t.numel() * t.element_size() for t in tensors)

        counted.plain = prepare  # type: ignore[attr-defined]
        Writer.prepare_write_data = counted

    def forward_step(self, step: Any) -> Any:
        """``step`` (train/module.py: forward_step) with autograd's saved tensors counted."""

        def counted(model: Any, batch: dict[str, Tensor]) -> Tensor:
            self.ledger.ignored |= storages(p.data for p in model.parameters()).keys()
            with torch.autograd.graph.saved_tensors_hooks(lambda t: _Kept(t, self.ledger), lambda kept: kept.tensor):
                out: Tensor = step(model, batch)
            return out

        return counted

    def at_end(self, trainer: Any) -> None:
        """Bytes of parameters, main gradients and optimiser state of this rank, once the run is over."""
        parameters = [p for chunk in trainer.strategy.model for p in chunk.parameters()]
        state: list[Tensor] = []
        for optimizer in trainer.strategy.optimizers:
            for part in getattr(optimizer.mcore_optimizer, "chained_optimizers", [optimizer.mcore_optimizer]):
                state += [v for s in part.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
                state += [p for group in part.optimizer.param_groups for p in group["params"]]
        held = storages(p.data for p in parameters)
        gradients = storages(p.main_grad for p in parameters)
        masters_and_moments = {k: v for k, v in storages(state).items() if k not in held and k not in gradients}
        self.static |= {
            "parameters": sum(held.values()),
            "gradients": sum(gradients.values()),
            "optimizer": sum(masters_and_moments.values()),
        }


def main() -> None:
    from sdrrl_nemo.compat.start import prepare

    prepare()
    from torch import distributed as dist

    from recipes.sdrrl_pretrain import train
    from sdrrl_nemo.train import module, trainer
    from sdrrl_nemo.train.callbacks.metrics import StepMetrics

    plain_step = module.forward_step
    for number, overrides in enumerate(sys.argv[3:]):
        measured = Measured()
        measured.count_saves()

        class Counting(StepMetrics):
            def on_train_end(self, trainer: Any, pl_module: Any, seen: Measured = measured) -> None:
                seen.at_end(trainer)
                super().on_train_end(trainer, pl_module)

        module.forward_step = measured.forward_step(plain_step)
        trainer.StepMetrics = Counting
        config = load_config(RunConfig, sys.argv[1], overrides.split())
        train(config)
        facts = {**measured.static, "activations": measured.ledger.peak, "left": measured.ledger.now}
        path = Path(sys.argv[2]) / f"{number}-{dist.get_rank()}.json"
        path.write_text(json.dumps(facts), encoding="utf-8")
        dist.barrier()
        forget_run()


if __name__ == "__main__":
    main()
