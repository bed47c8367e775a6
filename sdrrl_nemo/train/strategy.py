"""NeMo's MegatronStrategy with this project's step: loss vector, learning rate by step number, device-free logging."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from nemo import lightning as nl
from nemo.lightning.pytorch.plugins.data_sampler import MegatronDataSampler
from torch import Tensor
from torch.utils.data import DataLoader

from sdrrl_nemo.train.batches import MicroBatches
from sdrrl_nemo.train.config import OptimSettings


def learning_rate(o: OptimSettings, step: int, total_steps: int) -> float:
    """Learning rate of step ``step`` (from 0) of ``total_steps``: linear warm-up, then the schedule down to min_lr."""
    if step < o.warmup_steps:
        return o.lr * (step + 1) / o.warmup_steps
    done = (step - o.warmup_steps) / max(1, total_steps - o.warmup_steps)
    falling = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[o.schedule]
    return o.min_lr + (o.lr - o.min_lr) * max(0.0, falling)


class PackedDataSampler(MegatronDataSampler):  # type: ignore[misc]
    """Tells Megatron's schedule the row shape; the data loader already yields this rank's micro-batches."""

    def __init__(self, batches: MicroBatches, global_batch_size: int) -> None:
        super().__init__(
            seq_len=batches.row_shape[1],
            micro_batch_size=batches.micro_batch_size,
            global_batch_size=global_batch_size,
            output_log=False,
        )
        self.rows = batches.row_shape[0]

    def transform_dataloader(self, dataloader: DataLoader[Any], consumed_samples: int = 0) -> DataLoader[Any]:
        """Leave the loader as it is: order and resume are in ``train/batches.py``."""
        return dataloader

    def on_megatron_step_start(self, step: Any) -> Any:
        """Shape of the tensors that pipeline stages exchange: packed rows lie end to end in one."""
        step = super().on_megatron_step_start(step)
        step.micro_batch_size = self.rows
        return step

    def on_megatron_step_end(self, step: Any) -> None:
        """No batch-size ramp-up, nothing to update."""


class SdrrlStrategy(nl.MegatronStrategy):  # type: ignore[misc]
    """One optimiser step = one global batch; ``metrics`` holds what the step produced, equal on every rank."""

    metrics: dict[str, Any]
    lr_of_step: Callable[[int], float]
    loss_entries: int
    """Length of the loss vector: 1 + number of subsets."""
    seed: int

    def setup_distributed(self) -> None:
        """Also seed Megatron's tensor-parallel random states where there is no GPU: NeMo seeds them on GPUs only."""
        super().setup_distributed()
        if not torch.cuda.is_available():
            model_parallel_cuda_manual_seed(self.seed)

    def training_step(self, dataloader_iter: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward of one global batch; returns the Eq. 6 loss of the step."""
        for chunk in self.model:
            chunk.zero_grad_buffer()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        reduced = self.model.training_step(dataloader_iter, *args, **kwargs)
        vector = self._from_last_stage(reduced)
        self.metrics = {"vector": vector}
        return vector[0]

    def _from_last_stage(self, reduced: Tensor) -> Tensor:
        """The loss vector, sent from the last pipeline stage to all others."""
        if parallel_state.get_pipeline_model_parallel_world_size() == 1:
            return reduced
        last = parallel_state.is_pipeline_last_stage(ignore_virtual=True)
        nothing = torch.zeros(self.loss_entries, dtype=torch.float64, device=torch.cuda.current_device())
        vector = reduced if last else nothing
        torch.distributed.broadcast(
            vector,
            src=parallel_state.get_pipeline_model_parallel_last_rank(),
            group=parallel_state.get_pipeline_model_parallel_group(),
        )
        return vector

    def optimizer_step(self, optimizer: Any, closure: Callable[[], Any], model: Any = None, **kwargs: Any) -> Any:
        """Set the learning rate of this step, run the closure (training_step) and Megatron's optimiser."""
        lr = self.lr_of_step(self.trainer.global_step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        # the parent of MegatronStrategy: MegatronStrategy itself only adds logging that assumes a CUDA device
        out = super(nl.MegatronStrategy, self).optimizer_step(optimizer, closure, model, **kwargs)
        _, grad_norm, _ = out
        self.metrics |= {"lr": lr, "grad_norm": float(grad_norm) if grad_norm is not None else None}
        return out

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any], selective_restore: bool = False) -> None:
        """Restore optimiser state; like NeMo's without its CUDA device mesh, which only FSDP reads."""
        if not self.should_restore_optimizer_states(selective_restore=selective_restore):
            return
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer"], strict=True):
            optimizer.load_state_dict(state)
