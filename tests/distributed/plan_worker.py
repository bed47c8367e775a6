"""Run under torchrun: train tiny configurations with the real recipe and count the bytes its tensors hold.

torchrun --nproc-per-node N tests/distributed/plan_worker.py CONFIG.yaml OUTPUT_FOLDER 'key=value ...' '...'

Every rank writes OUTPUT_FOLDER/<number of the configuration>-<rank>.json. Activations are what autograd keeps for the
backward pass, of all micro-batches in flight, at the moment it keeps most; counted by storage, without parameters.
Then the run is started again at its checkpoint, and the bytes counted that reading it holds beside the run's own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

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
        self.live_share = 0.0
        """Of the fullest micro-batch."""
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

    def load_checkpoint(self, load: Any) -> Any:
        """``load`` (train/strategy.py: load_checkpoint) with the bytes of what it returns counted, less those of the
        model and the optimiser, into which some of it is read directly."""

        def counted(strategy: Any, *args: Any, **kwargs: Any) -> Any:
            found = load(strategy, *args, **kwargs)
            parameters, gradients, state = self.own(strategy)
            fresh = storages(t for t in tree_leaves(_plain(found)) if isinstance(t, Tensor))
            held = parameters.keys() | gradients.keys() | state.keys()
            self.static["loaded"] = sum(size for address, size in fresh.items() if address not in held)
            return found

        return counted

    def forward_step(self, step: Any) -> Any:
        """``step`` (train/module.py: forward_step) with autograd's saved tensors counted."""

        def counted(model: Any, batch: dict[str, Tensor]) -> Tensor:
            self.ledger.ignored |= storages(p.data for p in model.parameters()).keys()
            with torch.autograd.graph.saved_tensors_hooks(lambda t: _Kept(t, self.ledger), lambda kept: kept.tensor):
                out: Tensor = step(model, batch)
            share = batch["live"].numel() / batch["labels"].numel()
            self.live_share = max(self.live_share, share)
            return out

        return counted

    def own(self, strategy: Any) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
        """Storages of parameters, main gradients and optimiser state of this rank."""
        parameters = [p for chunk in strategy.model for p in chunk.parameters()]
        state: list[Tensor] = []
        for optimizer in strategy.optimizers:
            for part in getattr(optimizer.mcore_optimizer, "chained_optimizers", [optimizer.mcore_optimizer]):
                state += [v for s in part.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
                state += [p for group in part.optimizer.param_groups for p in group["params"]]
        held = storages(p.data for p in parameters)
        gradients = storages(p.main_grad for p in parameters)
        masters_and_moments = {k: v for k, v in storages(state).items() if k not in held and k not in gradients}
        return held, gradients, masters_and_moments

    def at_end(self, trainer: Any) -> None:
        """Their bytes, once the run is over."""
        names = ("parameters", "gradients", "optimizer")
        self.static |= {n: sum(part.values()) for n, part in zip(names, self.own(trainer.strategy), strict=True)}


def _plain(found: Any) -> Any:
    """A checkpoint without Megatron's own containers, which hold tensors as ``data``."""
    if isinstance(found, dict):
        return {k: _plain(v) for k, v in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(v) for v in found]
    return found if isinstance(found, Tensor) else getattr(found, "data", None)


def main() -> None:
    from sdrrl_nemo.compat.start import prepare

    prepare()
    from torch import distributed as dist

    from recipes.sdrrl_pretrain import train
    from sdrrl_nemo.train import module, trainer
    from sdrrl_nemo.train.callbacks.metrics import StepMetrics
    from sdrrl_nemo.train.run_dir import FINISHED_FILE

    plain_step, plain_load = module.forward_step, trainer.SdrrlStrategy.load_checkpoint
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
        forget_run()
        if dist.get_rank() == 0:  # so that the same command reads the checkpoint, and finds nothing left to do
            (Path(config.run_dir) / FINISHED_FILE).unlink()
        dist.barrier()
        trainer.SdrrlStrategy.load_checkpoint = measured.load_checkpoint(plain_load)
        train(config)
        facts = {**measured.static, "activations": measured.ledger.peak, "left": measured.ledger.now}
        facts["live_share"] = measured.live_share
        path = Path(sys.argv[2]) / f"{number}-{dist.get_rank()}.json"
        path.write_text(json.dumps(facts), encoding="utf-8")
        dist.barrier()
        forget_run()


if __name__ == "__main__":
    main()
