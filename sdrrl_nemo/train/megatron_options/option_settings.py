"""Keys of the section ``megatron`` of a training run, and the sentences that a plan says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

NONE = "none"
MODULES = ("core_attn", "layernorm", "mlp")
"""Of ``recompute_modules`` those that the models of this project have; megatron-core's others belong to mixtures of
experts and to latent attention."""
FP8_MULTIPLE = 16
"""Tokens and sizes of a product in fp8 are multiples of it (Transformer Engine)."""


@dataclass
class MegatronSettings:
    """Options of megatron-core 0.15 for memory and speed, under its own names.

    None of them changes what is trained: losses and gradients stay what they are without (fp8 rounds more coarsely). A
    run may be continued with others, fp8 excepted. docs/training.md has what each costs and saves.
    """

    recompute_granularity: str = NONE
    """``none``; ``full``: layers keep their input alone and are computed again in the backward pass; ``selective``: so
    are the parts ``recompute_modules`` of every layer."""
    recompute_method: str = ""
    """With ``full``: ``uniform`` (every ``recompute_num_layers`` layers keep the input of the first) or ``block`` (the
    first ``recompute_num_layers`` layers of each chunk keep their inputs, the others everything)."""
    recompute_num_layers: int = 0
    """With ``full``: layers of a unit (``uniform``), or layers of each model chunk of a rank (``block``)."""
    recompute_modules: list[str] = field(default_factory=lambda: ["mlp"])
    """With ``selective``: ``mlp`` (the feed-forward part), ``layernorm`` (local layers only: Transformer Engine has its
    norms inside the projections) or ``core_attn`` (Megatron's default, which spares almost nothing where the attention
    keeps no scores, as here)."""
    overlap_grad_reduce: bool = False
    """Gradients are summed over data-parallel ranks in buckets, while the last backward pass goes on."""
    overlap_param_gather: bool = False
    """With the distributed optimizer: new weights are gathered in the next forward pass, each before it is used. Needs
    ``overlap_grad_reduce``."""
    tp_comm_overlap: bool = False
    """Tensor-parallel messages travel while products are computed (Transformer Engine's user buffers). Needs
    ``trainer.sequence_parallel`` and Transformer Engine's layers."""
    gradient_accumulation_fusion: bool = False
    """Weight gradients are added to the fp32 ones within their product. Needs apex's CUDA extensions."""
    fp8: str = NONE
    """``none``; ``hybrid`` (e4m3 forward, e5m2 backward) or ``e4m3``: products of Transformer Engine's layers in fp8,
    the output layer and everything else in bf16. Rows are padded to 16 x tp x cp tokens."""
    fp8_recipe: str = "delayed"
    """``delayed`` (scales from the maxima of 1,024 steps before) or ``tensorwise`` (from the tensor itself)."""
    cuda_graph_impl: str = NONE
    """``none`` alone: docs/training.md says why CUDA graphs are refused."""


def recompute_words(m: MegatronSettings) -> str:
    """What is computed again, as a plan names it; empty where nothing is."""
    if m.recompute_granularity == "selective":
        return f"selective ({', '.join(m.recompute_modules)})"
    if m.recompute_granularity == "full":
        return f"full ({m.recompute_method} {m.recompute_num_layers})"
    return ""


def option_words(m: MegatronSettings) -> str:
    """The options that are on, as a plan names them."""
    found = [f"recompute {recompute_words(m)}"] if recompute_words(m) else []
    on = ("overlap_grad_reduce", "overlap_param_gather", "tp_comm_overlap", "gradient_accumulation_fusion")
    found += [key for key in on if getattr(m, key)]
    if m.fp8 != NONE:
        found.append(f"fp8 {m.fp8} ({m.fp8_recipe})")
    return ", ".join(found) or NONE


def notes(m: MegatronSettings) -> Iterator[str]:
    """Said at the start and in the plan of a run: options that only a GPU can run, and none has."""
    untried = {
        "fp8": m.fp8 != NONE,
        "tp_comm_overlap": m.tp_comm_overlap,
        "gradient_accumulation_fusion": m.gradient_accumulation_fusion,
    }
    for key, on in untried.items():
        if on:
            yield (
                f"megatron.{key} has not run on a card in this project yet: compare the losses of the first steps with "
                "those of a run without it"
            )


def option_identity(m: MegatronSettings) -> dict[str, str]:
    """Part of a run's identity: fp8 rounds otherwise, all else leaves the run what it is."""
    return {} if m.fp8 == NONE else {"fp8": f"{m.fp8} ({m.fp8_recipe})"}


def row_multiple(m: MegatronSettings, tp: int, cp: int, sequence_parallel: bool) -> int:
    """What the tokens of a row are a multiple of, beside the 2 x cp of context parallelism: tp under sequence
    parallelism; in fp8, with those together, 16 x tp x cp."""
    if m.fp8 != NONE:
        return FP8_MULTIPLE * tp // (2 if cp > 1 else 1)
    return tp if sequence_parallel else 1
