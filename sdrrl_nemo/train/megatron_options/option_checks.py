"""Options of the section ``megatron`` that cannot work together, with the layout, the model or the machine."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.train.megatron_options.option_settings import FP8_MULTIPLE, MODULES, NONE, MegatronSettings

FUSED_GRADIENTS = "fused_weight_gradient_mlp_cuda"
"""apex's extension, which megatron-core calls where a product adds its result to the gradient."""
FP8_CAPABILITY = (8, 9)
"""Of the first GPUs with products in fp8 (Ada, Hopper)."""


@dataclass(frozen=True)
class Around:
    """What of the rest of the configuration decides which options can work. ``layers``: ``model.layers``."""

    tp: int
    sequence_parallel: bool
    distributed_optimizer: bool
    layers: str
    precision: str
    lora: bool


def check_options(m: MegatronSettings, run: Around) -> None:
    """SdrrlError for what can be known without model, data and machine; names the key."""
    for key, value, known in (
        ("recompute_granularity", m.recompute_granularity, (NONE, "selective", "full")),
        ("fp8", m.fp8, (NONE, "hybrid", "e4m3")),
        ("fp8_recipe", m.fp8_recipe, ("delayed", "tensorwise")),
    ):
        if value not in known:
            raise SdrrlError(f"megatron.{key}: '{value}' is not one of {', '.join(known)}")
    if m.cuda_graph_impl != NONE:
        raise SdrrlError(
            f"megatron.cuda_graph_impl: '{m.cuda_graph_impl}' is refused: a graph replays fixed shapes, and each row "
            "has another number of samples (docs/training.md); set it to none"
        )
    _check_recompute(m, run)
    _check_overlap(m, run)
    if m.gradient_accumulation_fusion and run.lora:
        raise SdrrlError(
            "megatron.gradient_accumulation_fusion needs weights that are trained, and lora.rank freezes them; set one "
            "of the two off"
        )
    _check_fp8(m, run)


def _check_recompute(m: MegatronSettings, run: Around) -> None:
    full = m.recompute_granularity == "full"
    if full and m.recompute_method not in ("uniform", "block"):
        raise SdrrlError(
            f"megatron.recompute_method: '{m.recompute_method}' is not one of uniform, block, which "
            "megatron.recompute_granularity: full asks for"
        )
    if full and m.recompute_num_layers < 1:
        raise SdrrlError(
            f"megatron.recompute_num_layers: must be at least 1 with megatron.recompute_granularity: full, is "
            f"{m.recompute_num_layers}"
        )
    if not full and (m.recompute_method or m.recompute_num_layers):
        raise SdrrlError(
            "megatron.recompute_method and megatron.recompute_num_layers say which layers are computed again under "
            f"megatron.recompute_granularity: full, which is {m.recompute_granularity}"
        )
    if m.recompute_granularity != "selective":
        return
    wrong = [x for x in m.recompute_modules if x not in MODULES]
    if wrong or not m.recompute_modules or len(set(m.recompute_modules)) != len(m.recompute_modules):
        what = f"'{wrong[0]}' is not a part of these models" if wrong else "empty, or a name twice"
        raise SdrrlError(f"megatron.recompute_modules: {what}; choose from {', '.join(MODULES)}")
    _check_norms(m, run.layers)


def _check_norms(m: MegatronSettings, layers: str) -> None:
    if m.recompute_granularity == "selective" and "layernorm" in m.recompute_modules and layers == "te":
        raise SdrrlError(
            "megatron.recompute_modules: layernorm is no part of its own in Transformer Engine's layers, which compute "
            "it inside the projections; leave it out, or set model.layers=local"
        )


def _check_overlap(m: MegatronSettings, run: Around) -> None:
    if m.overlap_param_gather and not (run.distributed_optimizer and m.overlap_grad_reduce):
        raise SdrrlError(
            "megatron.overlap_param_gather needs optim.use_distributed_optimizer=true, whose weights are gathered, and "
            "megatron.overlap_grad_reduce=true"
        )
    if m.tp_comm_overlap and (run.tp == 1 or not run.sequence_parallel):
        raise SdrrlError("megatron.tp_comm_overlap needs trainer.tp > 1 and trainer.sequence_parallel=true")
    if m.tp_comm_overlap and (run.layers == "local" or run.precision == "fp32"):
        raise SdrrlError(
            "megatron.tp_comm_overlap is Transformer Engine's: it needs model.layers=te (or auto) and "
            "trainer.precision=bf16"
        )


def _check_fp8(m: MegatronSettings, run: Around) -> None:
    if m.fp8 == NONE:
        return
    if run.layers == "local" or run.precision == "fp32":
        raise SdrrlError(
            "megatron.fp8 is Transformer Engine's: it needs model.layers=te (or auto) and trainer.precision=bf16"
        )
    if run.lora:
        raise SdrrlError(
            "megatron.fp8 with lora.rank: the adapters' products are too narrow for fp8 and would stay in bf16 beside "
            "frozen weights in two types; set megatron.fp8=none"
        )


def check_option_sizes(m: MegatronSettings, chunk: int, products: dict[str, int]) -> None:
    """SdrrlError where the model's sizes do not go with the options.

    Args:
        chunk: layers of a model chunk, of which a rank has ``trainer.vpp``.
        products: sizes of a rank's products by the words for them.
    """
    n = m.recompute_num_layers
    if m.recompute_granularity == "full" and (n > chunk or (m.recompute_method == "uniform" and chunk % n)):
        rule = "divide" if m.recompute_method == "uniform" else "be at most"
        raise SdrrlError(
            f"megatron.recompute_num_layers={n}: must {rule} the {chunk} layers of a model chunk with "
            f"megatron.recompute_method: {m.recompute_method}"
        )
    for what, size in products.items():
        if m.fp8 != NONE and size % FP8_MULTIPLE:
            raise SdrrlError(
                f"megatron.fp8: the {what} of a rank is {size}, and products in fp8 need multiples of {FP8_MULTIPLE}; "
                "set megatron.fp8=none or another trainer.tp"
            )


def check_option_machine(m: MegatronSettings, layers: str, capability: tuple[int, int] | None) -> None:
    """SdrrlError for what this machine lacks.

    Args:
        layers: ``te`` or ``local``: what ``model.layers`` comes to here.
        capability: of the GPU; None where there is none.
    """
    for key, on in (("fp8", m.fp8 != NONE), ("tp_comm_overlap", m.tp_comm_overlap)):
        if on and layers != "te":
            raise SdrrlError(
                f"megatron.{key} needs Transformer Engine and a GPU, and one is missing here (sdrrl doctor says which)"
            )
    _check_norms(m, layers)
    if m.fp8 != NONE and capability is not None and capability < FP8_CAPABILITY:
        raise SdrrlError(
            f"megatron.fp8: this GPU's compute capability {capability[0]}.{capability[1]} has no products in "
            "fp8, which begin with 8.9; set megatron.fp8=none"
        )
    if m.gradient_accumulation_fusion and (capability is None or importlib.util.find_spec(FUSED_GRADIENTS) is None):
        raise SdrrlError(
            f"megatron.gradient_accumulation_fusion needs a GPU and apex built with its CUDA extensions, whose "
            f"{FUSED_GRADIENTS} is missing; set it to false"
        )
