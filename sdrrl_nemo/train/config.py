"""Typed configuration of a training run; YAML in configs/ fills it, ``key=value`` overrides change it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from omegaconf import MISSING

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.precision import AUTO
from sdrrl_nemo.train.megatron_options.option_checks import Around, check_options
from sdrrl_nemo.train.megatron_options.option_settings import MegatronSettings


def checkpoint_name(step: int) -> str:
    """Directory name, under <run_dir>/checkpoints, of the checkpoint after ``step`` optimiser steps."""
    return f"step-{step:06d}"


@dataclass
class ModelSettings:
    """Which Hugging Face model is trained."""

    hf_path: str = MISSING
    pad_heads_to: int = 1
    """Key/value heads are padded with zero heads to a multiple of this, so that a TP size divides them."""
    layers: str = "auto"
    """``te`` (Transformer Engine's), ``local`` (ours, in torch), or ``auto``: the former where it is installed, with a
    GPU, and has an attention for the run; it has none for packed rows in fp32."""
    attention: str = "auto"
    """Of local layers over packed rows: ``flash`` (the package flash-attn), ``varlen`` (the same inside torch, from
    2.10 on), ``sdpa`` (torch's, sample by sample), or ``auto``: the first of them that machine and run allow."""


SAMPLING = ("proportional", "equal", "temperature", "numbers")


@dataclass
class BlendEntry:
    """One part of ``data.blend``."""

    path: str = MISSING
    """A folder that preprocessing wrote (``output_dir/packed``), mixed or by subset; or the prefix of one packed set,
    its path without ``.bin``; or a ``blend.json``. Of a folder by subset and of a ``blend.json`` all sets are taken."""
    weight: float = 1.0
    """Multiplies lambda_d of the part's subsets: what they count in the loss, however often they are drawn."""
    sampling: float | None = None
    """With ``data.sampling: numbers``: how often the part is drawn from, relative to the other parts. Within a part of
    several sets, each set by its number of rows."""


@dataclass
class DataSettings:
    """Which packed set is read, or which sets are, and how they become micro-batches."""

    path: str = ""
    """Directory with ``<name>.bin`` / ``.idx`` and sidecars, as tools/preprocess_sdrrl.py writes it; a directory by
    subset is taken as the blend that it holds."""
    blend: list[BlendEntry] = field(default_factory=list)
    """In place of ``path``: several packed sets, of one tokenizer and ``packing.seq_length``."""
    sampling: str = "proportional"
    """How often each set of a blend is drawn. ``proportional``: every row once an epoch. ``equal``: as many rows of
    each set. ``temperature``: by (rows of the set) ** (1 / temperature). ``numbers``: by ``sampling`` of each entry."""
    temperature: float = 1.0
    """1: as ``proportional``, but by quotas; the larger, the nearer to ``equal``."""
    epoch_rows: int = 0
    """Rows that an epoch of a blend draws; 0: as many as all sets have. Not with ``proportional``."""
    objective: dict[str, float] = field(default_factory=dict)
    """lambda_d: subset, or a pattern such as ``"mt*"`` -> what the mean of its losses counts in the sum of Eq. 6; a
    later entry wins over an earlier one. A subset that none names has 1."""
    name: str = "train"
    validation: str = ""
    """Name of the held-out packed set in the same directory; empty: none."""
    packed: bool = True
    """True: one row is packs end to end with cu_seqlens. False: one row is one sample, right-padded."""
    prefetch: int = 4
    """Micro-batches that a thread of each rank makes ahead of their use; 0: none, each is made when a step asks."""


@dataclass
class LossSettings:
    """Eq. 6."""

    sample_reduction: str = "mean"
    """l_CE of a sample: ``mean`` over its answer tokens, ``sum``, or ``token`` (subset mean over all answer tokens).
    ``step``: no Eq. 6 but the mean over all answer tokens of a step, as ordinary fine-tuning has it."""
    normalise: str = "sum"
    """``sum``: Eq. 6, which adds up the subsets. ``mean``: Eq. 6 divided by the number of subsets that have samples, so
    that loss and gradients have the scale of a mean over tokens; not with sample_reduction ``step``."""
    kernel: str = "auto"
    """``auto`` (Triton on CUDA, torch elsewhere), ``triton``, ``fused_linear`` (output projection inside the loss, in
    chunks of rows: the logits of a micro-batch never exist at once) or ``torch``."""
    chunk_mib: int | None = None
    """``fused_linear`` alone: MiB of logits that exist at a time on a GPU. More where so few rows would make the matrix
    products wait for memory. None: 512, on a CPU 32."""
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    """Adds z_loss * logsumexp**2 to every token's loss, weighted like it."""


@dataclass
class OptimSettings:
    """Adam and its schedule. Learning rates are per step, no hidden scaling."""

    lr: float | int | str = 1e-5
    """A number, or ``auto``: auto_lr_base * sqrt(answer tokens of a step / 4e6) (train/schedule.py)."""
    auto_lr_base: float = 3e-4
    """LLaMA's rate at 4e6 tokens a step: 3e-4 (7B, 13B), 1.5e-4 from 30B on; a sixth of it for Mistral and Gemma."""
    min_lr: float = 0.0
    warmup_steps: int = 0
    warmup_fraction: float = 0.0
    """Of all steps, rounded up; instead of ``warmup_steps``."""
    schedule: str = "cosine"
    """``cosine``, ``linear`` or ``constant`` after the warm-up."""
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_eps: float = 1e-8
    clip_grad: float | int | str = "auto"
    """Gradients whose norm over all parameters is larger are scaled down to it; 0: never. A number means just that.
    ``auto``: the weight that the answer tokens of a step carry, mean over the epoch, and so what 1.0 is for a mean over
    tokens: the number of subsets under loss.normalise ``sum``, 1 under ``mean`` (train/schedule.py)."""
    use_distributed_optimizer: bool = False


@dataclass
class LoraSettings:
    """Low-rank adapters on frozen weights (model/lora.py); merged into them at export."""

    rank: int = 0
    """0: no adapters, all weights are trained. A multiple of trainer.tp."""
    alpha: float = 32.0
    """The update is alpha / rank * B A."""
    dropout: float = 0.0
    """On the adapters' input."""
    target_modules: list[str] = field(default_factory=lambda: ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"])
    """Megatron's names of: query, key and value; attention output; gate and up; down projection."""


@dataclass
class SpikeSettings:
    """Steps that are skipped: always where loss or gradients are not finite."""

    factor: float = 0.0
    """Also where the gradient norm is over ``factor`` x the median of the last ``window``; 0: never."""
    window: int = 64
    warmup: int = 16
    """Norms to have seen before the median counts."""
    max_in_a_row: int = 5
    """After so many skipped steps in a row the run ends with an error."""


@dataclass
class ValidationSettings:
    """Eq. 6 on ``data.validation`` while training."""

    every: int = 0
    """Evaluate every so many steps and at the end; 0: only at the end."""
    patience: int = 0
    """Stop after so many evaluations without improvement; 0: never."""
    min_delta: float = 0.0


@dataclass
class WandbSettings:
    """Weights & Biases beside TensorBoard; needs the package ``wandb``."""

    project: str = ""
    """Empty: not used."""
    entity: str = ""
    name: str = ""
    """Name of the run; empty: the last part of ``run_dir``."""
    offline: bool = False
    """Write to ``run_dir/wandb`` only; ``wandb sync`` sends it later."""


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
    """``bf16`` (parameters bf16, optimiser and gradients fp32), ``fp32``, or ``auto``: bf16 where it is native."""
    save_every: int = 0
    """Checkpoint every so many steps; 0: only at the end; -1: never (measurements)."""
    keep_checkpoints: int = 2
    checkpoint_optimizer: bool = True
    """False: checkpoints hold the weights alone, a third of the bytes and less; a run that was stopped starts anew."""
    async_checkpoints: bool = False
    """Write checkpoints in processes of their own while training goes on; takes a copy of the state in host memory."""
    num_threads: int = 0
    """CPU threads a rank uses; 0: leave torch's choice."""
    accelerator: str = "auto"
    """``gpu`` (refused where CUDA is not available), ``cpu`` (GPUs are left alone), or ``auto``: a GPU where there is
    one."""
    deterministic: bool = False
    """The same bits from the same command on GPUs too: deterministic kernels of torch, Megatron, Transformer Engine and
    flash-attention, where they have them; slower. On a CPU runs have the same bits anyway."""


@dataclass
class RunConfig:
    """One training run: ``recipes/sdrrl_pretrain.py --config FILE``."""

    run_dir: str = MISSING
    seed: int = 1234
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    spikes: SpikeSettings = field(default_factory=SpikeSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    megatron: MegatronSettings = field(default_factory=MegatronSettings)
    wandb: WandbSettings = field(default_factory=WandbSettings)


def check(config: RunConfig, world_size: int) -> int:
    """Validate what does not need the data; returns the data-parallel size. SdrrlError names the key."""
    t = config.trainer
    _check_blend(config)
    choices = {
        "data.sampling": (config.data.sampling, SAMPLING),
        "trainer.precision": (t.precision, ("bf16", "fp32", AUTO)),
        "trainer.accelerator": (t.accelerator, ("auto", "gpu", "cpu")),
        "model.layers": (config.model.layers, ("auto", "te", "local")),
        "model.attention": (config.model.attention, ("auto", "flash", "varlen", "sdpa")),
        "optim.schedule": (config.optim.schedule, ("cosine", "linear", "constant")),
        "loss.sample_reduction": (config.loss.sample_reduction, ("mean", "sum", "token", "step")),
        "loss.normalise": (config.loss.normalise, ("sum", "mean")),
        "loss.kernel": (config.loss.kernel, ("auto", "triton", "fused_linear", "torch")),
    }
    for key, (value, known) in choices.items():
        if value not in known:
            raise SdrrlError(f"{key}: '{value}' is not one of {', '.join(known)}")
    if config.model.layers == "te" and t.precision == "fp32" and config.data.packed:
        raise SdrrlError(
            "model.layers: te has no attention for packed rows in fp32 (flash and fused attention are half precision); "
            "set trainer.precision=bf16, data.packed=false or model.layers=local"
        )
    if not 0 <= config.loss.label_smoothing < 1 or config.loss.z_loss < 0:
        raise SdrrlError("loss.label_smoothing must be in [0, 1) and loss.z_loss not negative")
    if config.loss.chunk_mib is not None and (config.loss.chunk_mib < 1 or config.loss.kernel != "fused_linear"):
        raise SdrrlError(
            f"loss.chunk_mib: must be a positive number of MiB, and goes with loss.kernel=fused_linear alone; is "
            f"{config.loss.chunk_mib} with loss.kernel={config.loss.kernel}"
        )
    _check_optimisation(config)
    for key in ("tp", "pp", "vpp", "cp", "micro_batch_size", "global_batch_size", "keep_checkpoints"):
        if getattr(t, key) < 1:
            raise SdrrlError(f"trainer.{key}: must be at least 1, is {getattr(t, key)}")
    _check_lora(config)
    distributed = config.optim.use_distributed_optimizer
    around = Around(t.tp, t.sequence_parallel, distributed, config.model.layers, t.precision, config.lora.rank > 0)
    check_options(config.megatron, around)
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


def _check_blend(config: RunConfig) -> None:
    d = config.data
    if d.path and d.blend:
        raise SdrrlError(
            "data.path and data.blend are both set; give one packed set as data.path, or several as data.blend"
        )
    for number, entry in enumerate(d.blend):
        for key, value in (("weight", entry.weight), ("sampling", entry.sampling)):
            if value is not None and not 0 < value < math.inf:
                raise SdrrlError(f"data.blend[{number}].{key}: must be a positive number, is {value}")
        if (entry.sampling is None) == (d.sampling == "numbers"):
            wrong = "is missing" if entry.sampling is None else "is set"
            raise SdrrlError(
                f"data.blend[{number}].sampling {wrong}, and data.sampling is {d.sampling}; set both (every entry's "
                "sampling, and data.sampling: numbers) or neither"
            )
    if d.prefetch < 0:
        raise SdrrlError(f"data.prefetch: must be 0 (nothing made ahead) or more micro-batches, is {d.prefetch}")
    if d.sampling == "numbers" and not d.blend:
        raise SdrrlError("data.sampling: numbers needs data.blend, each entry with its sampling")
    if not 0 < d.temperature < math.inf:
        raise SdrrlError(f"data.temperature: must be a positive number, is {d.temperature}")
    if d.epoch_rows < 0 or (d.epoch_rows and d.sampling == "proportional"):
        raise SdrrlError(
            f"data.epoch_rows={d.epoch_rows}: must not be negative, and 0 with data.sampling: proportional, whose "
            "epoch has every row once"
        )
    factors = [*d.objective.values(), *(entry.weight for entry in d.blend)]
    for name, value in d.objective.items():
        if not 0 <= value < math.inf:
            raise SdrrlError(f"data.objective: '{name}' must be a number from 0, is {value}")
    if config.loss.sample_reduction == "step" and any(value != 1 for value in factors):
        raise SdrrlError(
            "data.objective and the weights of data.blend weigh the subsets of Eq. 6, which loss.sample_reduction: "
            "step does not have; use mean, sum or token"
        )


def _check_lora(config: RunConfig) -> None:
    s, tp = config.lora, config.trainer.tp
    if s.rank < 0 or s.alpha <= 0 or not 0 <= s.dropout < 1:
        raise SdrrlError("lora: rank must not be negative, alpha must be positive, dropout in [0, 1)")
    if not s.rank:
        return
    if s.rank % tp:
        raise SdrrlError(f"lora.rank={s.rank} is not a multiple of trainer.tp={tp}: tensor parallelism splits it")
    known = LoraSettings().target_modules
    wrong = [x for x in s.target_modules if x not in known]
    if wrong or not s.target_modules or len(set(s.target_modules)) != len(s.target_modules):
        what = f"'{wrong[0]}' is unknown" if wrong else "empty, or a name twice"
        raise SdrrlError(f"lora.target_modules: {what}; choose from {', '.join(known)}")


def _check_optimisation(config: RunConfig) -> None:
    o, v, s = config.optim, config.validation, config.spikes
    for key, value in (("lr", o.lr), ("clip_grad", o.clip_grad)):
        if isinstance(value, str) and value != AUTO:
            raise SdrrlError(f"optim.{key}: '{value}' is neither a number nor '{AUTO}'")
    if o.clip_grad != AUTO and not 0 <= float(o.clip_grad) < math.inf:
        raise SdrrlError(f"optim.clip_grad: must be a finite number from 0 (never clip) or auto, is {o.clip_grad}")
    if o.warmup_steps and o.warmup_fraction:
        raise SdrrlError("optim.warmup_steps and optim.warmup_fraction are both set; keep one")
    if not 0 <= o.warmup_fraction < 1:
        raise SdrrlError(f"optim.warmup_fraction: must be in [0, 1), is {o.warmup_fraction}")
    if config.loss.normalise == "mean" and config.loss.sample_reduction == "step":
        raise SdrrlError(
            "loss.normalise: mean divides the sum over subsets, which loss.sample_reduction: step does not have; use "
            "mean, sum or token as sample_reduction, or loss.normalise: sum"
        )
    if config.data.validation and config.loss.sample_reduction == "step":
        raise SdrrlError(
            "loss.sample_reduction: step gives no loss of a whole held-out set; use mean, sum or token with "
            "data.validation"
        )
    if (v.every or v.patience) and not config.data.validation:
        raise SdrrlError("validation.every / validation.patience need a held-out set: set data.validation to its name")
    if v.patience and not v.every:
        raise SdrrlError("validation.patience needs validation.every: it counts evaluations")
    if min(v.every, v.patience) < 0 or v.min_delta < 0:
        raise SdrrlError("validation.every, validation.patience and validation.min_delta must not be negative")
    if s.factor < 0 or s.window < 1 or s.warmup < 1 or s.max_in_a_row < 1:
        raise SdrrlError("spikes: factor must not be negative; window, warmup and max_in_a_row at least 1")
    if s.warmup > s.window:
        raise SdrrlError(
            f"spikes.warmup={s.warmup} is more than spikes.window={s.window}: the median would never count"
        )
