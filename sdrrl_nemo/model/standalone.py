"""A Megatron model without a trainer: import, export and checks use it; one process or several under torchrun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state, tensor_parallel
from torch import Tensor

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.ranks import join
from sdrrl_nemo.model.provider import SdrrlGPTConfig

WEIGHTS = "weights"
"""Sub-directory of a NeMo checkpoint that holds the distributed tensors."""
MODEL_PREFIX = "module."
MASTER_PREFIXES = ("optimizer.state.fp32_param.module.", "optimizer.state.param.module.")
"""fp32 masters of a bf16 run: as the optimisers write them, and as the distributed one did in its gathered form."""


def init_parallel(tp: int = 1, pp: int = 1) -> None:
    """Process group (from torchrun's environment, else a group of one) and Megatron's model-parallel groups."""
    join()
    if dist.get_world_size() % (tp * pp):
        raise SdrrlError(f"tp={tp} x pp={pp} does not divide the {dist.get_world_size()} processes torchrun started")
    parallel_state.initialize_model_parallel(tp, pp)
    tensor_parallel.model_parallel_cuda_manual_seed(0)


def build(config: SdrrlGPTConfig, tp: int = 1, pp: int = 1) -> Any:
    """This rank's mcore GPTModel in fp32 on this rank's device; ``init_parallel`` first."""
    config.tensor_model_parallel_size = tp
    config.pipeline_model_parallel_size = pp
    config.pipeline_dtype = torch.float32
    model = config.configure_model(None)
    return model.to(torch.cuda.current_device())


def save_weights(model: Any, folder: Path) -> None:
    """Write the model's tensors as a Megatron distributed checkpoint in NeMo's layout; every rank calls this."""
    weights = folder / WEIGHTS
    weights.mkdir(parents=True, exist_ok=True)
    dist.barrier()
    dist_checkpointing.save(model.sharded_state_dict(prefix=MODEL_PREFIX), str(weights))
    dist.barrier()


def checkpoint_tensors(folder: Path, weights: str = "auto") -> dict[str, Tensor]:
    """Whole tensors of a checkpoint, names without prefix; layers are stacked in a leading dimension.

    Args:
        weights: ``model`` (as the forward pass used them), ``master`` (the optimiser's fp32 copies of a bf16 run), or
            ``auto``: master where the run kept them.
    """
    path = folder / WEIGHTS
    metadata = dist_checkpointing.load_tensors_metadata(str(path))
    masters = [p for p in MASTER_PREFIXES if any(k.startswith(p) for k in metadata)]
    if weights == "master" and not masters:
        raise SdrrlError(f"{folder}: holds no fp32 master weights; use --weights model")
    out: dict[str, Tensor] = {}
    for prefix in [MODEL_PREFIX, *(masters if weights != "model" else [])]:
        # a master weight takes the place of the forward pass's copy
        wanted = {k: v for k, v in metadata.items() if k.startswith(prefix)}
        shapes = {k: v.global_shape for k, v in wanted.items()}
        loaded = dist_checkpointing.load(wanted, str(path), validate_access_integrity=False)
        # the distributed optimiser's tensors come back flat
        out |= {k.removeprefix(prefix): v.view(shapes[k]) for k, v in loaded.items() if isinstance(v, Tensor)}
    return out


def common_state(folder: Path) -> dict[str, Any]:
    """What a checkpoint says beside its tensors."""
    state: dict[str, Any] = dist_checkpointing.load_common_state_dict(str(folder / WEIGHTS))
    return state


STACKED_NAMES = {
    "input_layernorm.weight": "self_attention.linear_qkv.layer_norm_weight",
    "pre_mlp_layernorm.weight": "mlp.linear_fc1.layer_norm_weight",
}
"""Checkpoints carry Transformer Engine's names of the fused norms, whichever layer spec wrote them."""


def unstacked(tensors: dict[str, Tensor], name: str) -> Tensor:
    """Tensor of one layer (``decoder.layers.3.mlp...``) or a whole tensor by its model name."""
    head = "decoder.layers."
    if not name.startswith(head):
        return tensors[name]
    number, rest = name.removeprefix(head).split(".", 1)
    for candidate in (rest, STACKED_NAMES.get(rest, rest)):
        if head + candidate in tensors:
            return tensors[head + candidate][int(number)]
    raise SdrrlError(f"the checkpoint has no tensor for '{name}'")


def load_into(model: Any, tensors: dict[str, Tensor]) -> None:
    """Copy whole tensors into a TP=1, PP=1 model; rows that only one side pads are dropped, or zero."""
    with torch.no_grad():
        for name, param in model.named_parameters():
            source = unstacked(tensors, name)
            both = tuple(slice(0, min(sizes)) for sizes in zip(param.shape, source.shape, strict=True))
            param.zero_()
            param[both].copy_(source[both])


def logits(model: Any, token_ids: Tensor) -> Tensor:
    """Logits fp32 [b, s, V] of a TP=1, PP=1 model for token ids int64 [b, s]."""
    model.eval()
    positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
    with torch.no_grad():
        out: Tensor = model(token_ids, positions, None)
    return out.float()


def logits_across_ranks(model: Any, token_ids: Tensor) -> Tensor | None:
    """Logits fp32 [b, s, V padded] of a model in any layout, on the ranks of its last stage; None on the others."""
    model.eval()
    positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
    with torch.no_grad():
        if not model.pre_process:
            shape = token_ids.shape[1], token_ids.shape[0], model.config.hidden_size
            hidden = torch.empty(shape, device=token_ids.device)
            dist.recv(hidden, src=parallel_state.get_pipeline_model_parallel_prev_rank())
            model.set_input_tensor(hidden)
        out: Tensor = model(token_ids, positions, None)
        if not model.post_process:
            dist.send(out.contiguous(), dst=parallel_state.get_pipeline_model_parallel_next_rank())
            return None
        gathered: Tensor = tensor_parallel.gather_from_tensor_model_parallel_region(out)
        return gathered.float()
