"""How a run is spread over GPUs, and how its layers are built: what memory and time follow from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sdrrl_nemo.cost.flops import ModelShape, padded_vocabulary


@dataclass(frozen=True)
class Layout:
    """Parallel sizes of a run and its micro-batches, in the words of ``TrainerSettings``."""

    tp: int = 1
    pp: int = 1
    vpp: int = 1
    cp: int = 1
    dp: int = 1
    sequence_parallel: bool = False
    micro_batch_size: int = 1
    accumulation: int = 1
    """Micro-batches of a step on one data-parallel rank."""

    @property
    def gpus(self) -> int:
        """Processes."""
        return self.tp * self.pp * self.cp * self.dp

    @property
    def global_batch_size(self) -> int:
        """Rows of a step."""
        return self.micro_batch_size * self.accumulation * self.dp


@dataclass(frozen=True)
class Build:
    """What decides the bytes and kernels of a layer, beside its sizes."""

    precision: str = "bf16"
    fused: bool = True
    """Transformer Engine's layers (model/layer_spec.py takes them where they are installed); False: the local spec."""
    device: str = "cuda"
    """``cpu``: attention runs in fp32 there (model/attention.py)."""
    packed: bool = True
    distributed_optimizer: bool = False
    fused_linear: bool = False
    """loss.kernel: the output projection inside the loss, in chunks of rows."""
    chunk_mib: int | None = None
    """loss.chunk_mib: logits of such a chunk."""
    live_share: float = 1.0
    """Share of a micro-batch's rows that carry loss and are projected; 1: the most that a micro-batch can hold."""
    gradient_bytes: int = 4
    """train/trainer.py keeps and reduces gradients in fp32; the published runs are not ours and differ."""
    recompute: str = "none"
    """``none``, ``selective`` or ``full`` (Korthikanti et al. 2022), as ``megatron.recompute_granularity``."""
    recompute_method: str = "uniform"
    recompute_layers: int = 1
    """Layers of a unit (``uniform``), or of each model chunk (``block``)."""
    recompute_modules: tuple[str, ...] = ("core_attn",)
    """Parts that ``selective`` computes again."""
    flash: bool = True
    """Attention that never writes its scores; False: Megatron before flash-attention."""
    adapters: int = 0
    """LoRA: trained parameters a layer, the others are frozen; 0: all are trained."""
    adapter_rank: int = 0
    fused_accumulation: bool = False
    """Weight gradients added to the fp32 ones inside their product."""
    overlap_grad_reduce: bool = False
    """Gradients reduced behind the last backward pass."""
    overlap_param_gather: bool = False
    """Weights gathered behind the first forward pass."""
    tp_comm_overlap: bool = False
    """Tensor-parallel messages behind the products they belong to."""
    fp8: bool = False
    """Products of the layers in fp8, the output layer's in bf16."""
    eager: tuple[str, ...] = ()
    """Parts that are single operations of torch in fp32, ``norm`` and ``softmax``, as in megatron-core's own local
    layers: published runs only."""

    @property
    def width(self) -> int:
        """Bytes of a parameter and of an activation."""
        return 2 if self.precision == "bf16" else 4


def recomputed_share(shape: ModelShape, layout: Layout, build: Build) -> float:
    """Share of a rank's layers that are computed again as a whole."""
    if build.recompute != "full":
        return 0.0
    chunk = shape.layers / (layout.pp * layout.vpp)
    return 1.0 if build.recompute_method == "uniform" else min(1.0, build.recompute_layers / chunk)


def recomputes(build: Build, part: str) -> bool:
    """Whether ``part`` of every layer is computed again by itself."""
    return build.recompute == "selective" and part in build.recompute_modules


def padded(shape: ModelShape, multiple: int, tp: int) -> ModelShape:
    """Sizes Megatron works with: whole zero groups of heads (model.pad_heads_to), rows of the vocabulary added."""
    groups = math.ceil(shape.groups / multiple) * multiple
    heads = groups * (shape.heads // shape.groups)
    return replace(shape, heads=heads, groups=groups, vocabulary=padded_vocabulary(shape.vocabulary, tp))


def misfit(shape: ModelShape, layout: Layout) -> str | None:
    """Why a model (its heads padded) cannot be split so, or None: the rule of model/provider.py, check_parallelism.

    Beside it, Megatron's own: all PP x VPP chunks hold the same number of layers.
    """
    for what, size in (
        ("attention heads", shape.heads),
        ("key/value heads", shape.groups),
        ("feed-forward size", shape.feed_forward),
    ):
        if size % layout.tp:
            hint = f" (model.pad_heads_to={layout.tp} would)" if "heads" in what else ""
            return f"TP {layout.tp} does not divide the {size} {what}{hint}"
    if shape.layers % (layout.pp * layout.vpp):
        return f"PP {layout.pp} x VPP {layout.vpp} does not divide the {shape.layers} layers"
    return None


def adapter_parameters(shape: ModelShape, rank: int, targets: Sequence[str]) -> int:
    """Parameters of one layer's LoRA adapters: rank x (inputs + outputs) of each target (Hu et al. 2021)."""
    heads, h, f = shape.heads * shape.head_dim, shape.hidden, shape.feed_forward
    sides = {
        "linear_qkv": h + heads + 2 * shape.groups * shape.head_dim,
        "linear_proj": heads + h,
        "linear_fc1": h + 2 * f,
        "linear_fc2": f + h,
    }
    return rank * sum(sides[t] for t in targets)
