"""One training run from a checked configuration: build the parts, resume if there is a checkpoint, fit."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig
from nemo import lightning as nl
from transformers import PretrainedConfig

from sdrrl_nemo.common.cli import is_rank_zero
from sdrrl_nemo.common.config import to_yaml
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, read_json, write_json
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.data.packed import PackedDataset
from sdrrl_nemo.data.tokenization import load_tokenizer, tokenizer_sha256
from sdrrl_nemo.model.hf_bridge import load_hf_weights
from sdrrl_nemo.model.provider import SdrrlGPTConfig, gpt_config, read_hf_config
from sdrrl_nemo.train.batches import MicroBatches, Schedule
from sdrrl_nemo.train.checkpoint import AtomicCheckpoint, complete_checkpoints, remove_unfinished
from sdrrl_nemo.train.config import RunConfig, check
from sdrrl_nemo.train.loss import attach_loss, check_kernel
from sdrrl_nemo.train.metrics import StepMetrics
from sdrrl_nemo.train.module import PackedDataModule, SdrrlModel, SummingOptimizer, data_step, forward_step
from sdrrl_nemo.train.strategy import SdrrlStrategy, learning_rate

IDENTITY_FILE = "identity.json"


def world_size() -> int:
    """Processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def open_data(config: RunConfig, vocab_size: int) -> PackedDataset:
    """The verified packed set; SdrrlError when tokenizer or vocabulary are not the model's."""
    fingerprint = tokenizer_sha256(load_tokenizer(config.model.hf_path))
    dataset = PackedDataset(config.data.path, config.data.name, fingerprint)
    packed_for = int(dataset.manifest["vocab_size"])
    if packed_for != vocab_size:
        raise SdrrlError(
            f"{config.data.path}/{config.data.name}.manifest.json: packed for a vocabulary of {packed_for}, "
            f"{config.model.hf_path} has {vocab_size}; preprocess again with this model"
        )
    return dataset


def micro_batches(config: RunConfig, dataset: PackedDataset) -> MicroBatches:
    """Order, weights and micro-batch builder of this run."""
    rows = MicroBatches.row_count(dataset, config.data.packed)
    return MicroBatches(
        dataset,
        packed=config.data.packed,
        micro_batch_size=config.trainer.micro_batch_size,
        reduction=config.loss.sample_reduction,
        schedule=Schedule(rows, config.trainer.global_batch_size, config.seed),
        context_parallel_size=config.trainer.cp,
        row_multiple=config.trainer.tp if config.trainer.sequence_parallel else 1,
    )


def total_steps(config: RunConfig, batches: MicroBatches) -> int:
    """Length of the run in optimiser steps."""
    return config.trainer.max_steps or math.ceil(config.trainer.epochs * batches.schedule.steps_per_epoch)


def model_config(config: RunConfig, hf: PretrainedConfig, batches: MicroBatches) -> SdrrlGPTConfig:
    """Megatron model configuration of this run, with weights loaded and loss attached when it is built."""
    t, m = config.trainer, config.model
    cfg = gpt_config(
        hf,
        seq_length=batches.row_shape[1],
        tp=t.tp,
        pp=t.pp,
        pad_heads_to=m.pad_heads_to,
    )

    def built(model: Any) -> None:
        rank = parallel_state.get_tensor_model_parallel_rank()
        load_hf_weights(model, m.hf_path, cfg, rank, t.tp)
        attach_loss(model, cfg.true_vocab_size, len(batches.dataset.subset_names), config.loss)

    cfg.on_model_built = built
    cfg.forward_step_fn = forward_step
    cfg.data_step_fn = data_step
    return cfg


def optimizer(config: RunConfig) -> SummingOptimizer:
    """Megatron's Adam."""
    o = config.optim
    return SummingOptimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=o.lr,
            weight_decay=o.weight_decay,
            adam_beta1=o.adam_beta1,
            adam_beta2=o.adam_beta2,
            adam_eps=o.adam_eps,
            clip_grad=o.clip_grad,
            bf16=config.trainer.precision == "bf16",
            use_distributed_optimizer=o.use_distributed_optimizer,
        )
    )


def strategy(config: RunConfig, steps: int, subsets: int) -> SdrrlStrategy:
    """Megatron parallelism; gradients are kept and reduced in fp32."""
    on_gpu = torch.cuda.is_available()
    out = SdrrlStrategy(
        tensor_model_parallel_size=config.trainer.tp,
        pipeline_model_parallel_size=config.trainer.pp,
        virtual_pipeline_model_parallel_size=config.trainer.vpp if config.trainer.vpp > 1 else None,
        context_parallel_size=config.trainer.cp,
        sequence_parallel=config.trainer.sequence_parallel,
        pipeline_dtype=torch.bfloat16 if config.trainer.precision == "bf16" else torch.float32,
        process_group_backend="nccl" if on_gpu else "gloo",
        ddp=DistributedDataParallelConfig(
            grad_reduce_in_fp32=True,
            use_distributed_optimizer=config.optim.use_distributed_optimizer,
            check_for_nan_in_grad=True,
        ),
        ckpt_async_save=False,
        replace_progress_bar=False,
    )
    out.loss_entries = 1 + subsets
    out.seed = config.seed
    out.lr_of_step = lambda step: learning_rate(config.optim, step, steps)
    return out


def claim_run_dir(config: RunConfig, dataset: PackedDataset, steps: int) -> None:
    """Refuse to resume under another setting; write resolved YAML and provenance beside the results."""
    run = Path(config.run_dir)
    identity = {
        "data": dataset.manifest["files"],
        "model": str(config.model.hf_path),
        "pad_heads_to": config.model.pad_heads_to,
        "global_batch_size": config.trainer.global_batch_size,
        "packed": config.data.packed,
        "seed": config.seed,
        "precision": config.trainer.precision,
        "steps": steps,
        "loss": {k: v for k, v in vars(config.loss).items() if k != "kernel"},
        "optim": vars(config.optim),
    }
    path = run / IDENTITY_FILE
    if path.is_file():
        before = read_json(path)
        changed = sorted(k for k in identity if before.get(k) != identity[k])
        if changed:
            raise SdrrlError(
                f"{run}: holds a run with other settings ({', '.join(changed)}); choose another run_dir or remove it"
            )
    run.mkdir(parents=True, exist_ok=True)
    with atomic_write(run / "config.yaml") as f:
        f.write(to_yaml(config))
    write_json(run / "provenance.json", provenance())
    write_json(path, identity)


def fit(config: RunConfig) -> None:
    """Train as configured; run again after any interruption it continues from the last checkpoint."""
    check(config, world_size())
    check_kernel(config.loss.kernel, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if config.trainer.num_threads:
        torch.set_num_threads(config.trainer.num_threads)
    hf = read_hf_config(config.model.hf_path)
    gpt_config(
        hf, seq_length=1, tp=config.trainer.tp, pp=config.trainer.pp, pad_heads_to=config.model.pad_heads_to
    )  # fails early, before any data is hashed
    dataset = open_data(config, hf.vocab_size)
    batches = micro_batches(config, dataset)
    steps = total_steps(config, batches)
    folder = Path(config.run_dir) / "checkpoints"
    done = complete_checkpoints(folder)
    if is_rank_zero():
        claim_run_dir(config, dataset, steps)
        remove_unfinished(folder)
    if done and done[-1][0] >= steps:
        if is_rank_zero():
            print(f"{config.run_dir}: all {steps} steps are done; checkpoint {done[-1][1]}")
        return
    launch(config, hf, batches, steps, resume_from=done[-1][1] if done else None)


def launch(
    config: RunConfig, hf: PretrainedConfig, batches: MicroBatches, steps: int, resume_from: Path | None
) -> None:
    """Build NeMo's trainer and fit."""
    trainer = nl.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=world_size() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        strategy=strategy(config, steps, len(batches.dataset.subset_names)),
        plugins=nl.MegatronMixedPrecision("bf16-mixed" if config.trainer.precision == "bf16" else "32"),
        max_steps=steps,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=TensorBoardLogger(config.run_dir, name="tensorboard", version=""),
        callbacks=[
            StepMetrics(config.run_dir, batches.dataset.subset_names, batches.useful_tokens),
            AtomicCheckpoint(
                str(Path(config.run_dir) / "checkpoints"), config.trainer.save_every, config.trainer.keep_checkpoints
            ),
        ],
    )
    model = SdrrlModel(model_config(config, hf, batches), tokenizer=None, optim=optimizer(config))
    datamodule = PackedDataModule(batches, config.trainer.global_batch_size)
    trainer.fit(model, datamodule=datamodule, ckpt_path=str(resume_from) if resume_from else None)
