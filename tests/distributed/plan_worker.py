"""Run under torchrun: train tiny configurations with the real recipe and count the bytes its tensors hold.

torchrun --nproc-per-node N tests/distributed/plan_worker.py CONFIG.yaml OUTPUT_FOLDER 'key=value ...' '...'

Every rank writes OUTPUT_FOLDER/<number of the configuration>-<rank>.json. Activations are what autograd keeps for the
backward pass, of all micro-batches in flight, at the moment it keeps most; counted by storage, without parameters.
Then the run is started again at its checkpoint, and the bytes counted that reading it holds beside the run's own. Of
both starts it is counted how much is read, and how much of it a process holds in host memory at a time.
"""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.model.hf_bridge import HFTensors
from sdrrl_nemo.train.config import RunConfig
from tests.distributed.fit_worker import forget_run


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of each storage under its address."""
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()}


class _Kept:
    """Stands in autograd's graph for a saved tensor; its bytes count until the graph lets go of it."""

    def __init__(self, tensor: Tensor, ledger: Ledger) -> None:
        self.tensor, self.ledger = tensor, ledger
        self.storages = storages([tensor])
        ledger.add(self.storages)

    def __del__(self) -> None:
        self.ledger.remove(self.storages)


class Ledger:
    """Bytes of the storages autograd holds now and held at most, each counted once; ``ignored``: parameters."""

    def __init__(self) -> None:
        self.ignored: set[int] = set()
        self.holders: dict[int, int] = {}
        self.now = self.peak = 0

    def add(self, kept: dict[int, int]) -> None:
        for address, size in kept.items():
            if address not in self.ignored:
                self.now += 0 if self.holders.get(address) else size
                self.holders[address] = self.holders.get(address, 0) + 1
        self.peak = max(self.peak, self.now)

    def remove(self, kept: dict[int, int]) -> None:
        for address, size in kept.items():
            if address not in self.ignored:
                self.holders[address] -= 1
                self.now -= 0 if self.holders[address] else size

    def without(self, part: Any) -> None:
        """Megatron's checkpoint of a part whose output is thrown away (and still held) until it is computed again."""
        plain = getattr(part.discard_output_and_register_recompute, "plain", part.discard_output_and_register_recompute)
        again = getattr(part._recompute, "plain", part._recompute)

        def discard(checkpoint: Any, hook_tensor: Tensor) -> None:
            checkpoint.thrown = sum(size for at, size in storages(checkpoint.outputs).items() if self.holders.get(at))
            plain(checkpoint, hook_tensor)
            self.now -= checkpoint.thrown

        def recompute(checkpoint: Any, gradient: Any) -> None:
            again(checkpoint, gradient)
            self.now += checkpoint.thrown
            self.peak = max(self.peak, self.now)

        discard.plain, recompute.plain = plain, again  # type: ignore[attr-defined]
        part.discard_output_and_register_recompute, part._recompute = discard, recompute


class HostMemory(TorchDispatchMode):
    """Bytes of the storages that operations make and nobody has let go of, now and at most; ``ignored``: addresses."""

    def __init__(self, ignored: Iterable[int]) -> None:
        super().__init__()
        self.known = set(ignored)
        self.now = self.peak = 0

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address not in self.known:
            self.known.add(address)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, address, size)

    def _remove(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for found in tree_leaves(out):
            if isinstance(found, Tensor):
                self.add(found)
        return out


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

    def count_reads(self) -> None:
        """From now on: bytes of the pieces that this rank reads of a checkpoint, and of the largest of them."""
        from torch.distributed.checkpoint import filesystem

        narrow = getattr(filesystem.narrow_tensor_by_index, "plain", filesystem.narrow_tensor_by_index)

        def counted(tensor: Tensor, *args: Any) -> Tensor:
            size = tensor.untyped_storage().nbytes()
            self.static["read"] = self.static.get("read", 0) + size
            self.static["read_host"] = max(self.static.get("read_host", 0), size)
            return narrow(tensor, *args)

        counted.plain = narrow  # type: ignore[attr-defined]
        filesystem.narrow_tensor_by_index = counted

    def load_weights(self, load: Any) -> Any:
        """``load`` (model/hf_bridge.py: load_hf_weights) with the bytes counted that it reads and holds."""

        def counted(model: Any, *args: Any) -> None:
            plain = HFTensors.__getitem__
            with HostMemory(storages(p.data for p in model.parameters()).keys()) as host:

                def read(tensors: HFTensors, name: str) -> Tensor:
                    found = plain(tensors, name)
                    self.static["start_read"] = self.static.get("start_read", 0) + found.untyped_storage().nbytes()
                    host.add(found)
                    return found

                HFTensors.__getitem__ = read  # type: ignore[method-assign]
                try:
                    load(model, *args)
                finally:
                    HFTensors.__getitem__ = plain  # type: ignore[method-assign]
            self.static["start_host"] = max(self.static.get("start_host", 0), host.peak)

        return counted

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

    def training_step(self, step: Any) -> Any:
        """``step`` (train/strategy.py: training_step) with autograd's saved tensors counted, those of parts that are
        computed again in the backward pass too."""
        from megatron.core.tensor_parallel import random

        self.ledger.without(random.CheckpointWithoutOutput)

        def counted(strategy: Any, *args: Any, **kwargs: Any) -> Tensor:
            self.ledger.ignored |= storages(p.data for chunk in strategy.model for p in chunk.parameters()).keys()
            with torch.autograd.graph.saved_tensors_hooks(lambda t: _Kept(t, self.ledger), lambda kept: kept.tensor):
                out: Tensor = step(strategy, *args, **kwargs)
            return out

        return counted

    def forward_step(self, step: Any) -> Any:
        """``step`` (train/module.py: forward_step) with the rows that carry loss counted."""

        def counted(model: Any, batch: dict[str, Tensor]) -> Tensor:
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
    plain_weights, plain_training = module.load_hf_weights, trainer.SdrrlStrategy.training_step
    for number, overrides in enumerate(sys.argv[3:]):
        measured = Measured()
        measured.count_saves()
        measured.count_reads()

        class Counting(StepMetrics):
            def on_train_end(self, trainer: Any, pl_module: Any, seen: Measured = measured) -> None:
                seen.at_end(trainer)
                super().on_train_end(trainer, pl_module)

        module.forward_step = measured.forward_step(plain_step)
        trainer.SdrrlStrategy.training_step = measured.training_step(plain_training)
        trainer.StepMetrics = Counting
        config = load_config(RunConfig, sys.argv[1], overrides.split())
        module.load_hf_weights = measured.load_weights(plain_weights)
        train(config)
        module.load_hf_weights = plain_weights
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
