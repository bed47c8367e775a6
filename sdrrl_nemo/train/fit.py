"""One training run from a checked configuration: build the parts, resume if there is a checkpoint, fit."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig
from nemo import lightning as nl
from omegaconf import OmegaConf
from transformers import PretrainedConfig

from sdrrl_nemo.common.cli import is_rank_zero
from sdrrl_nemo.common.config import to_yaml
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, read_json, write_json
from sdrrl_nemo.common.optional import require
from sdrrl_nemo.common.precision import resolve as resolve_precision
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.data.packing.packed import PackedDataset
from sdrrl_nemo.data.text.tokenizer import load_tokenizer, tokenizer_sha256
from sdrrl_nemo.model.families import check_window
from sdrrl_nemo.model.hf_bridge import load_hf_weights
from sdrrl_nemo.model.lora import add_adapters
from sdrrl_nemo.model.provider import SdrrlGPTConfig, gpt_config, read_hf_config
from sdrrl_nemo.plan.flops import ModelShape
from sdrrl_nemo.train.batches import MicroBatches, Schedule
from sdrrl_nemo.train.checkpoint import AtomicCheckpoint, newest_sound, remove_unfinished
from sdrrl_nemo.train.config import RunConfig, check
from sdrrl_nemo.train.faults import one_sentence
from sdrrl_nemo.train.guard import StepGuard
from sdrrl_nemo.train.heldout import HeldOutLoss
from sdrrl_nemo.train.lora_run import LoraCheckpoints, lora_identity, lora_of_run
from sdrrl_nemo.train.loss import attach_loss, check_kernel
from sdrrl_nemo.train.metrics import METRICS_FILE, Speed, StepMetrics, read_metrics
from sdrrl_nemo.train.module import PackedDataModule, SdrrlModel, SummingOptimizer, data_step, forward_step
from sdrrl_nemo.train.schedule import learning_rate, resolve
from sdrrl_nemo.train.strategy import SdrrlStrategy

IDENTITY_FILE = "identity.json"
FINISHED_FILE = "finished.json"


def world_size() -> int:
    """Processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def open_data(config: RunConfig, vocab_size: int, name: str) -> PackedDataset:
    """The verified packed set ``name``; SdrrlError when tokenizer or vocabulary are not the model's."""
    fingerprint = tokenizer_sha256(load_tokenizer(config.model.hf_path))
    dataset = PackedDataset(config.data.path, name, fingerprint)
    packed_for = int(dataset.manifest["vocab_size"])
    if packed_for != vocab_size:
        raise SdrrlError(
            f"{config.data.path}/{name}.manifest.json: packed for a vocabulary of {packed_for}, "
            f"{config.model.hf_path} has {vocab_size}; preprocess again with this model"
        )
    return dataset


def micro_batches(config: RunConfig, dataset: PackedDataset, seq_length: int = 0) -> MicroBatches:
    """Order, weights and micro-batch builder of this run; rows have at least ``seq_length`` tokens."""
    rows = MicroBatches.row_count(dataset, config.data.packed)
    return MicroBatches(
        dataset,
        packed=config.data.packed,
        micro_batch_size=config.trainer.micro_batch_size,
        reduction=config.loss.sample_reduction,
        schedule=Schedule(rows, config.trainer.global_batch_size, config.seed),
        context_parallel_size=config.trainer.cp,
        row_multiple=config.trainer.tp if config.trainer.sequence_parallel else 1,
        seq_length=seq_length,
    )


def all_batches(config: RunConfig, vocab_size: int) -> tuple[MicroBatches, MicroBatches | None]:
    """Batches of the training set and of the held-out one, rows of equal length."""
    train = open_data(config, vocab_size, config.data.name)
    if not config.data.validation:
        return micro_batches(config, train), None
    held = open_data(config, vocab_size, config.data.validation)
    if held.subset_names != train.subset_names:
        raise SdrrlError(
            f"{config.data.path}: '{config.data.validation}' has the subsets {', '.join(held.subset_names)}, "
            f"'{config.data.name}' has {', '.join(train.subset_names)}; both must come from one preprocessing"
        )
    length = max(micro_batches(config, d).seq_length for d in (train, held))
    return micro_batches(config, train, length), micro_batches(config, held, length)


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

    lora = lora_of_run(config, Path(config.run_dir) / IDENTITY_FILE)

    def built(model: Any) -> None:
        rank = parallel_state.get_tensor_model_parallel_rank()
        load_hf_weights(model, m.hf_path, cfg, rank, t.tp)
        if lora is not None:
            add_adapters(model, lora, cfg, config.seed, rank, t.tp)
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
            lr=0.0,  # set anew for every step by SdrrlStrategy
            weight_decay=o.weight_decay,
            adam_beta1=o.adam_beta1,
            adam_beta2=o.adam_beta2,
            adam_eps=o.adam_eps,
            clip_grad=o.clip_grad,
            bf16=config.trainer.precision == "bf16",
            use_distributed_optimizer=o.use_distributed_optimizer,
        )
    )


def strategy(config: RunConfig, steps: int, batches: MicroBatches) -> SdrrlStrategy:
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
            check_for_nan_in_grad=False,  # train/guard.py skips the step and names its samples
        ),
        ckpt_async_save=config.trainer.async_checkpoints,
        ckpt_optim_fully_reshardable=True,  # the distributed optimiser's part too can be continued in any layout
        replace_progress_bar=False,
    )
    out.loss_entries = 1 + len(batches.dataset.subset_names)
    out.seed = config.seed
    optim = resolve(config.optim, batches, steps)
    out.lr_of_step = lambda step: learning_rate(optim, step, steps)
    return out


def step_guard(config: RunConfig, batches: MicroBatches, first_step: int) -> StepGuard:
    """Judge of the steps; a resumed run remembers the gradient norms of the steps before ``first_step``."""
    path = Path(config.run_dir) / METRICS_FILE
    rows = read_metrics(path) if first_step and path.is_file() else []
    history = [r["grad_norm"] for r in rows if r["step"] <= first_step and not r["skipped"]]
    dp_size = check(config, world_size())
    return StepGuard(
        config.spikes,
        config.run_dir,
        lambda step, dp_rank, micro: batches.keys(step, dp_rank, dp_size, micro),
        history,
    )


def claim_run_dir(config: RunConfig, batches: MicroBatches, steps: int) -> None:
    """Refuse to resume under another setting; write resolved YAML and provenance beside the results."""
    run = Path(config.run_dir)
    identity = {
        "data": batches.dataset.manifest["files"],
        "model": str(config.model.hf_path),
        "pad_heads_to": config.model.pad_heads_to,
        "global_batch_size": config.trainer.global_batch_size,
        "packed": config.data.packed,
        "seed": config.seed,
        "precision": config.trainer.precision,
        "steps": steps,
        "loss": {k: v for k, v in vars(config.loss).items() if k != "kernel"},
        "optim": vars(resolve(config.optim, batches, steps)),
        **lora_identity(config),
    }
    path = run / IDENTITY_FILE
    if path.is_file():
        before = read_json(path)
        changed = sorted(k for k in identity.keys() | before.keys() if before.get(k) != identity.get(k))
        if changed:
            raise SdrrlError(
                f"{run}: holds a run with other settings ({', '.join(changed)}); choose another run_dir or remove it"
            )
    run.mkdir(parents=True, exist_ok=True)
    with atomic_write(run / "config.yaml") as f:
        f.write(to_yaml(config))
    write_json(run / "provenance.json", provenance())
    write_json(path, identity)


@dataclass(frozen=True)
class Prepared:
    """A run whose settings, model and data fit together, before anything is written or loaded."""

    hf: PretrainedConfig
    batches: MicroBatches
    held_out: MicroBatches | None
    steps: int


def prepare(config: RunConfig, world: int) -> Prepared:
    """Everything that can be wrong is found here, on ``world`` processes; SdrrlError says what."""
    check(config, world)
    config.trainer.precision = resolve_precision(config.trainer.precision, "bf16", "fp32")
    check_kernel(config.loss.kernel, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if config.wandb.project:
        require("wandb", "wandb", "wandb")
    hf = read_hf_config(config.model.hf_path)
    gpt_config(
        hf, seq_length=1, tp=config.trainer.tp, pp=config.trainer.pp, pad_heads_to=config.model.pad_heads_to
    )  # fails early, before any data is hashed
    if config.lora.rank and hf.hidden_size % config.trainer.tp:
        raise SdrrlError(
            f"trainer.tp={config.trainer.tp} does not divide the hidden size {hf.hidden_size}: LoRA needs it"
        )
    batches, held_out = all_batches(config, hf.vocab_size)
    longest = max(int(b.dataset.lengths.max()) for b in (batches, held_out) if b is not None)
    check_window(hf, longest, f"{config.model.hf_path}/config.json")
    return Prepared(hf, batches, held_out, total_steps(config, batches))


def fit(config: RunConfig) -> None:
    """Train as configured; run again after any interruption it continues from the last checkpoint."""
    if config.trainer.num_threads:
        torch.set_num_threads(config.trainer.num_threads)
    run = prepare(config, world_size())
    folder = Path(config.run_dir) / "checkpoints"
    finished = Path(config.run_dir) / FINISHED_FILE
    if is_rank_zero():
        claim_run_dir(config, run.batches, run.steps)
        remove_unfinished(folder)
    if finished.is_file():
        if is_rank_zero():
            end = read_json(finished)
            print(f"{config.run_dir}: all {end['step']} steps are done ({end['reason']}); checkpoints in {folder}")
        return
    init_distributed()
    launch(config, run.hf, (run.batches, run.held_out), run.steps, resume_from=newest_sound(folder))


def init_distributed() -> None:
    """Join the processes before NeMo does, which then uses them: the ranks check the checkpoint's files together."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    os.environ.setdefault("RANK", "0")
    os.environ.setdefault("WORLD_SIZE", "1")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "0")
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def launch(
    config: RunConfig,
    hf: PretrainedConfig,
    data: tuple[MicroBatches, MicroBatches | None],
    steps: int,
    resume_from: tuple[int, Path] | None,
) -> None:
    """Build NeMo's trainer and fit. ``resume_from``: (step, checkpoint)."""
    batches, held_out = data
    first_step, checkpoint = resume_from or (0, None)
    megatron = strategy(config, steps, batches)
    megatron.guard = step_guard(config, batches, first_step)
    subset_names = batches.dataset.subset_names
    speed = Speed(batches, ModelShape.of(hf), world_size(), frozen=config.lora.rank > 0)
    callbacks: list[Any] = [StepMetrics(config.run_dir, subset_names, speed)]
    if lora := lora_of_run(config, Path(config.run_dir) / IDENTITY_FILE):
        callbacks.append(LoraCheckpoints(lora, config.seed))
    held: HeldOutLoss | None = None
    if held_out is not None:
        held = HeldOutLoss(held_out, config.validation, config.run_dir, subset_names)
        callbacks.append(held)  # before the checkpoints, which keep the best
    t = config.trainer
    checkpoints = AtomicCheckpoint(
        str(Path(config.run_dir) / "checkpoints"),
        t.save_every,
        t.keep_checkpoints,
        best_step=(lambda: held.progress.best_step) if held else None,
        asynchronous=t.async_checkpoints,
    )
    callbacks.append(checkpoints)
    trainer = nl.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=world_size() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        strategy=megatron,
        plugins=nl.MegatronMixedPrecision("bf16-mixed" if config.trainer.precision == "bf16" else "32"),
        max_steps=steps,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=loggers(config),
        callbacks=callbacks,
    )
    model = SdrrlModel(model_config(config, hf, batches), tokenizer=None, optim=optimizer(config))
    datamodule = PackedDataModule(batches, config.trainer.global_batch_size)
    with one_sentence(config.run_dir):
        trainer.fit(model, datamodule=datamodule, ckpt_path=str(checkpoint) if checkpoint else None)
    finish(config, trainer.global_step, held, interrupted=checkpoints.terminated)


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


def finish(config: RunConfig, step: int, held: HeldOutLoss | None, interrupted: bool) -> None:
    """Say how the run ended; a run that ended by itself is marked, so that the same command does nothing more."""
    if not is_rank_zero():
        return
    if interrupted:
        print(f"{config.run_dir}: SIGTERM after step {step}; the same command continues from its checkpoint")
        return
    early = held is not None and held.progress.exhausted
    end: dict[str, Any] = {"step": step, "reason": "no better held-out loss" if early else "end of training"}
    if held is not None:
        end |= {"best_step": held.progress.best_step, "best_loss": held.progress.best_loss}
    if config.trainer.save_every >= 0:
        write_json(Path(config.run_dir) / FINISHED_FILE, end)
