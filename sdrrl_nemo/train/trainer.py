"""NeMo's trainer as this run needs it: Megatron's parallelism and Adam, the guard of the steps, callbacks, loggers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig
from nemo import lightning as nl
from omegaconf import OmegaConf

from sdrrl_nemo.common.ranks import from_rank_zero, processes_of_this_machine, world_size
from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.model.lora import Lora
from sdrrl_nemo.train.callbacks.checkpoint import AtomicCheckpoint
from sdrrl_nemo.train.callbacks.heldout import HeldOutLoss
from sdrrl_nemo.train.callbacks.lora_run import LoraCheckpoints
from sdrrl_nemo.train.callbacks.metrics import METRICS_FILE, Speed, StepMetrics, read_metrics
from sdrrl_nemo.train.config import RunConfig, check
from sdrrl_nemo.train.guard import StepGuard
from sdrrl_nemo.train.loading.prefetch import Waiting
from sdrrl_nemo.train.megatron_options.option_build import overlap_callbacks, precision_plugin
from sdrrl_nemo.train.module import SummingOptimizer
from sdrrl_nemo.train.preparation import Inputs
from sdrrl_nemo.train.run_dir import checkpoints_of
from sdrrl_nemo.train.schedule import learning_rate, resolve
from sdrrl_nemo.train.strategy import SdrrlStrategy


def adam(config: RunConfig, run: Inputs) -> SummingOptimizer:
    """Megatron's Adam on gradients that are sums, as Eq. 6 is; never means over tokens, micro-batches or ranks."""
    o = resolve(config.optim, run.batches, run.steps)
    return SummingOptimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=0.0,  # set anew for every step by SdrrlStrategy
            weight_decay=o.weight_decay,
            adam_beta1=o.adam_beta1,
            adam_beta2=o.adam_beta2,
            adam_eps=o.adam_eps,
            clip_grad=o.clip_grad,
            bf16=config.trainer.precision == "bf16",
            use_distributed_optimizer=o.use_distributed_optimizer,
            overlap_param_gather=config.megatron.overlap_param_gather,
        )
    )


def megatron_strategy(config: RunConfig, run: Inputs, first_step: int) -> SdrrlStrategy:
    """Megatron parallelism; gradients are kept and reduced in fp32."""
    t, batches = config.trainer, run.batches
    out = SdrrlStrategy(
        tensor_model_parallel_size=t.tp,
        pipeline_model_parallel_size=t.pp,
        virtual_pipeline_model_parallel_size=t.vpp if t.vpp > 1 else None,
        context_parallel_size=t.cp,
        sequence_parallel=t.sequence_parallel,
        pipeline_dtype=torch.bfloat16 if t.precision == "bf16" else torch.float32,
        process_group_backend="nccl" if torch.cuda.is_available() else "gloo",
        ddp=DistributedDataParallelConfig(
            grad_reduce_in_fp32=True,
            use_distributed_optimizer=config.optim.use_distributed_optimizer,
            overlap_grad_reduce=config.megatron.overlap_grad_reduce,
            overlap_param_gather=config.megatron.overlap_param_gather,
            check_for_nan_in_grad=False,  # train/guard.py skips the step and names its samples
        ),
        ckpt_async_save=t.async_checkpoints,
        ckpt_save_optimizer=t.checkpoint_optimizer,
        replace_progress_bar=False,
    )
    out.loss_entries = 1 + len(batches.dataset.subset_names)
    out.seed = config.seed
    optim = resolve(config.optim, batches, run.steps)
    out.clip_grad = float(optim.clip_grad)
    out.lr_of_step = lambda step: learning_rate(optim, step, run.steps)
    out.guard = step_guard(config, run, first_step)
    return out


def step_guard(config: RunConfig, run: Inputs, first_step: int) -> StepGuard:
    """Judge of the steps; a resumed run remembers the gradient norms of the steps before ``first_step``."""
    path = Path(config.run_dir) / METRICS_FILE
    rows = from_rank_zero(lambda: read_metrics(path) if first_step and path.is_file() else [])
    history = [r["grad_norm"] for r in rows if r["step"] <= first_step and not r["skipped"]]
    dp_size = check(config, world_size())
    return StepGuard(
        config.spikes,
        config.run_dir,
        lambda step, dp_rank, micro: run.batches.keys(step, dp_rank, dp_size, micro),
        history,
    )


@dataclass(frozen=True)
class Callbacks:
    """What happens beside the steps, in the order in which Lightning calls it."""

    metrics: StepMetrics
    lora: LoraCheckpoints | None
    held_out: HeldOutLoss | None
    checkpoints: AtomicCheckpoint

    def in_order(self) -> list[Any]:
        """The held-out loss comes before the checkpoints, which keep the best."""
        return [c for c in (self.metrics, self.lora, self.held_out, self.checkpoints) if c is not None]


def callbacks(config: RunConfig, run: Inputs, adapters: Lora | None, waiting: Waiting) -> Callbacks:
    """Metrics (``waiting``: of the training data), adapters, held-out loss and checkpoints of this run."""
    names = run.batches.dataset.subset_names
    speed = Speed(run.batches, ModelShape.of(run.hf), world_size(), frozen=config.lora.rank > 0)
    held = (
        HeldOutLoss(run.held_out, config.validation, config.run_dir, names, config.data.prefetch)
        if run.held_out
        else None
    )
    return Callbacks(
        metrics=StepMetrics(config.run_dir, names, speed, waiting),
        lora=None if adapters is None else LoraCheckpoints(adapters, config.seed),
        held_out=held,
        checkpoints=AtomicCheckpoint(
            str(checkpoints_of(config)),
            config.trainer.save_every,
            config.trainer.keep_checkpoints,
            best_step=(lambda: held.progress.best_step) if held else None,
            asynchronous=config.trainer.async_checkpoints,
        ),
    )


def build_trainer(config: RunConfig, run: Inputs, strategy: SdrrlStrategy, beside: Callbacks) -> nl.Trainer:
    """NeMo's trainer, with everything of Lightning switched off that this project does by itself."""
    rows, length = run.batches.row_shape
    tokens = rows * length // config.trainer.cp
    return nl.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=processes_of_this_machine(),
        num_nodes=world_size() // processes_of_this_machine(),
        strategy=strategy,
        plugins=precision_plugin(config.megatron, config.trainer.precision),
        max_steps=run.steps,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=loggers(config),
        callbacks=[*overlap_callbacks(config.megatron, tokens, run.hf.hidden_size), *beside.in_order()],
    )


def loggers(config: RunConfig) -> list[Any]:
    """TensorBoard always, Weights & Biases where a project is named."""
    found: list[Any] = [TensorBoardLogger(config.run_dir, name="tensorboard", version="")]
    w = config.wandb
    if w.project:
        from lightning.pytorch.loggers import WandbLogger

        found.append(
            WandbLogger(
                project=w.project,
                entity=w.entity or None,
                name=w.name or Path(config.run_dir).name,
                save_dir=config.run_dir,
                offline=w.offline,
                config=OmegaConf.to_container(OmegaConf.structured(config)),
            )
        )
    return found
