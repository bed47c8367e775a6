"""How Megatron's and NeMo's objects get the options of the section ``megatron``."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from megatron.core import parallel_state
from nemo import lightning as nl
from torch import Tensor

from sdrrl_nemo.common.optional import require
from sdrrl_nemo.compat.megatron import norms_without_fp8
from sdrrl_nemo.train.megatron_options.option_settings import NONE, MegatronSettings

AMAX_HISTORY = 1024
"""Steps whose maxima a delayed scale looks back on, as NeMo's own recipes have it."""


def set_options(gpt: Any, m: MegatronSettings) -> None:
    """Into the configuration of the model."""
    gpt.gradient_accumulation_fusion = m.gradient_accumulation_fusion
    gpt.tp_comm_overlap = m.tp_comm_overlap
    if m.recompute_granularity == NONE:
        return
    gpt.recompute_granularity = m.recompute_granularity
    gpt.recompute_method = m.recompute_method or None
    gpt.recompute_num_layers = m.recompute_num_layers or None
    gpt.recompute_modules = list(m.recompute_modules)
    norms_without_fp8()


def let_gradients_in(model: Any) -> None:
    """Of a model with frozen embeddings whose layers are computed again: their input asks for a gradient.

    torch gives none to what a recomputed part holds, adapters included, unless an input of the part asks for one.
    """
    if model.pre_process:
        model.embedding.register_forward_hook(_asks_for_gradient)


def _asks_for_gradient(module: Any, inputs: Any, output: Tensor) -> Tensor:
    return output if output.requires_grad else output.requires_grad_()


def precision_plugin(m: MegatronSettings, precision: str) -> nl.MegatronMixedPrecision:
    """NeMo's precision of the run, fp8 included. ``precision``: ``bf16`` or ``fp32``."""
    kind = "bf16-mixed" if precision == "bf16" else "32"
    if m.fp8 == NONE:
        return nl.MegatronMixedPrecision(kind)
    delayed = m.fp8_recipe == "delayed"
    return nl.MegatronMixedPrecision(
        kind,
        fp8=m.fp8,
        fp8_recipe=m.fp8_recipe,
        fp8_amax_history_len=AMAX_HISTORY if delayed else 1,
        fp8_amax_compute_algo="max" if delayed else "most_recent",
        fp8_param_gather=False,
    )


class UserBuffers(pl.Callback):
    """Makes the buffers in which Transformer Engine's tensor-parallel messages travel while products are computed."""

    def __init__(self, tokens: int, hidden: int, m: MegatronSettings) -> None:
        """``tokens``: of a micro-batch on a rank, all tensor-parallel ranks together; ``hidden``: the model's width."""
        self.shape = [tokens, hidden]
        self.fp8 = m.fp8 != NONE

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Once, before the first layer runs; NeMo's own callback would count packed rows twice."""
        base = require("transformer_engine.pytorch.module.base", "transformer-engine")
        size = parallel_state.get_tensor_model_parallel_world_size()
        base.initialize_ub(shape=self.shape, tp_size=size, use_fp8=self.fp8)


def overlap_callbacks(m: MegatronSettings, tokens: int, hidden: int) -> list[Any]:
    """What has to happen before the first step for ``tp_comm_overlap``; nothing without."""
    return [UserBuffers(tokens, hidden, m)] if m.tp_comm_overlap else []
