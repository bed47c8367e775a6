"""Typed configuration of a training run; YAML in configs/ fills it, ``key=value`` overrides change it."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from sdrrl_nemo.common.errors import SdrrlError


@dataclass
class ModelSettings:
    """Which Hugging Face model is trained."""

    hf_path: str = MISSING
    pad_heads_to: int = 1
    """Key/value heads are padded with zero heads to a multiple of this, so that a TP size divides them."""


@dataclass
class DataSettings:
    """Which packed set is read, and how it becomes micro-batches."""

    path: str = MISSING
    """Directory with ``<name>.bin`` / ``.idx`` and sidecars, as tools/preprocess_sdrrl.py writes it."""
    name: str = "train"
    packed: bool = True
    """True: one row is packs end to end with cu_seqlens. False: one row is one sample, right-padded."""


@dataclass
class LossSettings:
    """Eq. 6."""

    sample_reduction: str = "mean"
    """l_CE of a sample: ``mean`` over its answer tokens, ``sum``, or ``token`` (subset mean over all answer tokens)."""
    kernel: str = "auto"
    """``auto`` (Triton on CUDA, torch elsewhere), ``triton``, ``fused_linear`` (output projection inside the loss, in
    chunks of rows: no logits in memory) or ``torch``."""
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    """Adds z_loss * logsumexp**2 to every token's loss, weighted like it."""


@dataclass
class OptimSettings:
    """Adam and its schedule. Learning rates are per step, no hidden scaling."""

    lr: float = 1e-5
    min_lr: float = 0.0
    warmup_steps: int = 0
    schedule: str = "cosine"
    """``cosine``, ``linear`` or ``constant`` after the warm-up."""
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_eps: float = 1e-8
    clip_grad: float = 1.0
    use_distributed_optimizer: bool = False


@dataclass
class TrainerSettings:
    """Parallelism, batch sizes and length of the run. Batch sizes count rows: packs if data.packed, else samples."""

    tp: int = 1
    pp: int = 1
    vpp: int = 1
    """Model chunks a pipeline rank holds (interleaved schedule); 1: one."""
    cp: int = 1
    sequence_parallel: bool = False
    """Split norms and residuals along the sequence over the tensor-parallel ranks; needs tp > 1."""
    micro_batch_size: int = 1
    global_batch_size: int = 8
    epochs: float = 1.0
    max_steps: int = 0
    """Stop after this many steps; 0: after ``epochs``."""
    precision: str = "bf16"
    """``bf16`` (parameters bf16, optimiser and gradients fp32) or ``fp32``."""
    save_every: int = 0
    """Checkpoint every so many steps; 0: only at the end; -1: never (measurements)."""
    keep_checkpoints: int = 2
    num_threads: int = 0
    """CPU threads a rank uses; 0: leave torch's choice."""


@dataclass
class RunConfig:
    """One training run: ``recipes/sdrrl_pretrain.py --config FILE``."""

    run_dir: str = MISSING
    seed: int = 1234
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)


def check(config: RunConfig, world_size: int) -> int:
    """Validate what does not need the data; returns the data-parallel size. SdrrlError names the key."""
    t = config.trainer
    choices = {
        "trainer.precision": (t.precision, ("bf16", "fp32")),
        "optim.schedule": (config.optim.schedule, ("cosine", "linear", "constant")),
        "loss.sample_reduction": (config.loss.sample_reduction, ("mean", "sum", "token")),
        "loss.kernel": (config.loss.kernel, ("auto", "triton", "fused_linear", "torch")),
    }
    for key, (value, known) in choices.items():
        if value not in known:
            raise SdrrlError(f"{key}: '{value}' is not one of {', '.join(known)}")
    if not 0 <= config.loss.label_smoothing < 1 or config.loss.z_loss < 0:
        raise SdrrlError("loss.label_smoothing must be in [0, 1) and loss.z_loss not negative")
    for key in ("tp", "pp", "vpp", "cp", "micro_batch_size", "global_batch_size", "keep_checkpoints"):
        if getattr(t, key) < 1:
            raise SdrrlError(f"trainer.{key}: must be at least 1, is {getattr(t, key)}")
    if world_size % (t.tp * t.pp * t.cp):
        raise SdrrlError(
            f"trainer.tp={t.tp} x trainer.pp={t.pp} x trainer.cp={t.cp} does not divide the {world_size} processes "
            "torchrun started"
        )
    dp = world_size // (t.tp * t.pp * t.cp)
    if t.sequence_parallel and t.tp == 1:
        raise SdrrlError("trainer.sequence_parallel needs trainer.tp > 1: it splits over the tensor-parallel ranks")
    if t.vpp > 1 and t.pp == 1:
        raise SdrrlError("trainer.vpp > 1 needs trainer.pp > 1: it interleaves pipeline stages")
    if t.global_batch_size % (t.micro_batch_size * dp):
        raise SdrrlError(
            f"trainer.global_batch_size={t.global_batch_size} is not a multiple of micro_batch_size="
            f"{t.micro_batch_size} x data-parallel size {dp}"
        )
    accumulation = t.global_batch_size // (t.micro_batch_size * dp)
    if t.vpp > 1 and accumulation % t.pp:
        raise SdrrlError(
            f"trainer.vpp={t.vpp}: the interleaved schedule takes micro-batches in groups of trainer.pp={t.pp}, and a "
            f"step has {accumulation} a rank; change trainer.global_batch_size"
        )
    if t.epochs <= 0 or t.max_steps < 0:
        raise SdrrlError("trainer.epochs must be positive and trainer.max_steps not negative")
    return dp
