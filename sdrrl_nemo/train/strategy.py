"""NeMo's MegatronStrategy with this project's step: loss vector, learning rate by step number, device-free logging."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from nemo import lightning as nl
from nemo.lightning.pytorch.plugins.data_sampler import MegatronDataSampler
from torch import Tensor
from torch.utils.data import DataLoader

from sdrrl_nemo.compat.megatron import init_model_parallel
from sdrrl_nemo.compat.torch_adam import ready_to_load
from sdrrl_nemo.train.batches import MicroBatches
from sdrrl_nemo.train.guard import StepGuard


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
    guard: StepGuard
    _guarded: bool = False

    def setup_distributed(self) -> None:
        """Also where the processes have joined before (train/processes.py): NeMo then leaves out Megatron's groups.

        Megatron's tensor-parallel random states are seeded where there is no GPU; NeMo seeds them on GPUs only.
        """
        joined = torch.distributed.is_initialized()
        super().setup_distributed()
        if joined:
            init_model_parallel(self.model)
            if self.data_sampler:
                self.data_sampler.setup(self.cluster_environment.global_rank())
        if not torch.cuda.is_available():
            model_parallel_cuda_manual_seed(self.seed)

    def training_step(self, dataloader_iter: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward of one global batch; returns the Eq. 6 loss of the step."""
        for chunk in self.model:
            chunk.zero_grad_buffer()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        reduction = self.lightning_module.training_loss_reduction
        reduction.micro_losses = None
        reduced = self.model.training_step(dataloader_iter, *args, **kwargs)
        vector = self.from_last_stage(reduced)
        self.metrics = {"vector": vector, "micro_losses": reduction.micro_losses, "skipped": False}
        return vector[0]

    def _must_skip(self, grad_norm: float) -> bool:
        """Asked by the optimiser once its gradients are ready."""
        m = self.metrics
        skip = self.guard.judge(self.trainer.global_step, float(m["vector"][0]), grad_norm, m["micro_losses"])
        m |= {"skipped": skip, "grad_norm": grad_norm}
        return skip

    def from_last_stage(self, reduced: Tensor) -> Tensor:
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
        if not self._guarded:
            self.guard.attach(optimizer.mcore_optimizer, self._must_skip)
            self._guarded = True
        # the parent of MegatronStrategy: MegatronStrategy itself only adds logging that assumes a CUDA device
        out = super(nl.MegatronStrategy, self).optimizer_step(optimizer, closure, model, **kwargs)
        self.metrics["lr"] = lr
        return out

    def optimizer_sharded_state_dict(self, is_loading: bool = False, **kwargs: Any) -> Any:
        """As NeMo's, with torch's Adam made ready for a load."""
        if is_loading:
            for optimizer in self.optimizers:
                ready_to_load(optimizer.mcore_optimizer)
        return super().optimizer_sharded_state_dict(is_loading=is_loading, **kwargs)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any], selective_restore: bool = False) -> None:
        """Restore optimiser state; like NeMo's without its CUDA device mesh, which only FSDP reads."""
        if not self.should_restore_optimizer_states(selective_restore=selective_restore):
            return
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer"], strict=True):
            optimizer.load_state_dict(state)
