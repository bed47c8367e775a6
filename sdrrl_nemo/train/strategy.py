"""NeMo's MegatronStrategy with this project's step.

A step yields a loss vector (total and subsets) that every rank knows, takes its learning rate from its number alone,
and is judged before the weights change. What NeMo's strategy does beside that assumes a GPU is left out or replaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from nemo import lightning as nl
from nemo.lightning.pytorch.plugins.data_sampler import MegatronDataSampler
from torch import Tensor
from torch.utils.data import DataLoader

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.megatron import init_model_parallel
from sdrrl_nemo.compat.torch_adam import one_kernel, ready_to_load
from sdrrl_nemo.model.standalone import WEIGHTS
from sdrrl_nemo.train.batches import MicroBatches
from sdrrl_nemo.train.guard import StepGuard

EMBEDDING = ".embedding.word_embeddings.weight"
SHARDING = "fully_sharded_model_space"
"""megatron-core's name for: every parameter's state by itself, in the flat slices in which the ranks hold it."""


def written_vocabulary(checkpoint: Path, flat: bool = True) -> int | None:
    """Rows of the padded vocabulary in a checkpoint; None where it has no embedding, or, with ``flat``, where it is not
    in flat slices, which only the distributed optimiser's state is."""
    tensors = dist_checkpointing.load_tensors_metadata(str(checkpoint / WEIGHTS))
    found = [t for name, t in tensors.items() if name.endswith(EMBEDDING) and (t.flattened_range is not None) == flat]
    return int(found[0].global_shape[0]) if found else None


def rows_to_continue(checkpoint: Path | None, rows: int, padded: int, tp: int) -> int:
    """Rows of the padded vocabulary of a run: those of the checkpoint it continues from, where ``tp`` divides them.

    A checkpoint of a version, or of a layout, that padded otherwise goes on as it is. Else, and for a new run,
    ``padded``; what cannot be continued with that is refused when the checkpoint is read. ``rows``: the model's own.
    """
    written = written_vocabulary(checkpoint, flat=False) if checkpoint is not None else None
    return padded if written is None or written < rows or written % tp else written


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
        """Correct the shape of the tensors that pipeline stages exchange.

        Megatron derives it from the micro-batch size; packed rows lie end to end, so the tensors have one row.
        """
        step = super().on_megatron_step_start(step)
        step.micro_batch_size = self.rows
        return step

    def on_megatron_step_end(self, step: Any) -> None:
        """No batch-size ramp-up, nothing to update."""


class SdrrlStrategy(nl.MegatronStrategy):  # type: ignore[misc]
    """One optimiser step takes one global batch. The attributes without a value are set by ``trainer.py``."""

    metrics: dict[str, Any]
    """What the latest step produced. Equal on every rank: loss ``vector`` float64 [1 + subsets], ``lr``, ``grad_norm``,
    ``clipped``, ``skipped``. On ranks of the last pipeline stage only, None elsewhere: ``micro_losses``."""
    lr_of_step: Callable[[int], float]
    loss_entries: int
    """Length of the loss vector: 1 + number of subsets."""
    clip_grad: float
    """Gradient norm above which Megatron's optimiser scales the gradients down to it; 0: never."""
    seed: int
    guard: StepGuard
    _guarded: bool = False

    def setup_distributed(self) -> None:
        """Make Megatron's process groups and seed its random states, also where NeMo alone would not.

        NeMo makes the groups only when it joins the processes itself, and here they joined before
        (``ranks.join``). It seeds the tensor-parallel random states on GPUs only.
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
        """Forward and backward pass of one global batch; returns the loss of the step, the total of Eq. 6.

        Called from within ``optimizer_step``: the optimiser runs it as its closure.
        """
        for chunk in self.model:
            chunk.zero_grad_buffer()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        # Told anew every step: where this rank computes no loss, the guard must not see the losses of an earlier step.
        reduction = self.lightning_module.training_loss_reduction
        reduction.micro_losses = None
        reduced = self.model.training_step(dataloader_iter, *args, **kwargs)
        vector = self.from_last_stage(reduced)
        self.metrics = {"vector": vector, "micro_losses": reduction.micro_losses, "skipped": False}
        return vector[0]

    def _must_skip(self, grad_norm: float) -> bool:
        """Whether the step is dropped; Megatron's optimiser asks once its gradients are reduced.

        Loss vector and norm are equal on every rank, so all ranks answer alike without asking each other.
        """
        m = self.metrics
        loss = float(m["vector"][0])
        if math.isnan(loss):  # a label outside the vocabulary makes it so; what set that flag is asked only now
            self.lightning_module.label_flag.require_none(self.trainer.global_step + 1)
        skip = self.guard.judge(self.trainer.global_step, loss, grad_norm, m["micro_losses"])
        clipped = not skip and 0 < self.clip_grad < grad_norm
        m |= {"skipped": skip, "grad_norm": grad_norm, "clipped": clipped}
        return skip

    def from_last_stage(self, reduced: Tensor) -> Tensor:
        """The loss vector float64 [1 + subsets] on every rank; the last pipeline stage, which has it, sends it."""
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
        """Set the learning rate of this step, then run the closure (``training_step``) and Megatron's optimiser."""
        lr = self.lr_of_step(self.trainer.global_step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        # Once, at the first step: Lightning hands over the same optimiser in every step.
        if not self._guarded:
            self.guard.attach(optimizer.mcore_optimizer, self._must_skip)
            one_kernel(optimizer.mcore_optimizer)
            self._guarded = True
        # the parent of MegatronStrategy: MegatronStrategy itself only adds logging that assumes a CUDA device
        out = super(nl.MegatronStrategy, self).optimizer_step(optimizer, closure, model, **kwargs)
        self.metrics["lr"] = lr
        return out

    @property
    def sharded_state_dict_metadata(self) -> dict[str, Any]:
        """As NeMo's, but each rank of the distributed optimiser writes its own slices of the state.

        Both forms that NeMo offers fit badly: ``dp_reshardable`` is tied to the layout, ``fully_reshardable`` gathers
        the whole state of a model-parallel rank on the host of its first data-parallel rank, through the memory of
        every GPU. This form continues in any layout and gathers nothing.
        """
        metadata: dict[str, Any] = super().sharded_state_dict_metadata
        if "distrib_optim_sharding_type" in metadata:
            metadata["distrib_optim_sharding_type"] = SHARDING
            metadata.pop("distrib_optim_fully_reshardable_mem_efficient", None)
        return metadata

    def load_checkpoint(self, checkpoint_path: str | Path, selective_restore: bool = False) -> dict[str, Any]:
        """As NeMo's; SdrrlError where the optimiser's flat slices are of a table that another layout padded."""
        written = written_vocabulary(Path(checkpoint_path))
        padded = self.lightning_module.config.vocab_size
        if written is not None and written != padded:
            raise SdrrlError(
                f"{checkpoint_path}: the distributed optimizer's state is for a vocabulary of {written} rows, this "
                f"trainer.tp={self.tensor_model_parallel_size} pads it to {padded}; continue with a trainer.tp that "
                f"divides {written}"
            )
        found: dict[str, Any] = super().load_checkpoint(checkpoint_path, selective_restore)
        return found

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
