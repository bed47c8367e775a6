"""Methods of Megatron's objects that training replaces, and the private function of NeMo that it calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sdrrl_nemo.compat.registry import register

_GUARD = register(
    "step-guard", "megatron-core", "a step whose loss or gradient is not sound is judged before it is taken"
)
_LOSS = register("eq6-loss", "megatron-core", "the loss kernel takes the place of the model's own loss")
_OUTPUT = register("output-pass-through", "megatron-core", "the loss has only rows that carry loss projected")
_ADAPTERS = register("adapter-state", "megatron-core", "checkpoints of a LoRA run hold the adapters alone")
_ROTARY = register("rotary-frequencies", "megatron-core", "its own scaling knows one of Llama 3's four factors")
_NORMS = register("norms-without-fp8", "megatron-core", "norms are computed again without Transformer Engine too")
_GROUPS = register("parallel-groups", "nemo_toolkit", "groups are made by hand where the processes have joined before")


def replace_prepare_grads(optimizer: Any, new: Callable[[], bool]) -> None:
    """Of a Megatron optimiser: called once the gradients are reduced; True skips the step."""
    _GUARD.get(optimizer, "get_grad_norm", parameters=())
    _GUARD.replace(optimizer, "prepare_grads", new, parameters=())


def replace_loss(model: Any, new: Callable[..., Any]) -> None:
    """Of a GPTModel: called with labels and logits, both [rows, batch, ...]."""
    _LOSS.replace(model, "compute_language_model_loss", new, parameters=("labels", "logits"))


def replace_output_forward(layer: Any, new: Callable[..., Any]) -> Callable[..., Any]:
    """Of the output layer of a GPTModel; returns its own."""
    old = _OUTPUT.replace(layer, "forward", new, parameters=("input_", "weight", "runtime_gather_output"))
    return old  # type: ignore[no-any-return]


def project_rows_of_all_ranks(layer: Any) -> None:
    """An output layer made for sequence parallelism takes rows that are gathered already: it gathers none itself, and
    sums the gradient of its input over the ranks, as without sequence parallelism."""
    if _OUTPUT.replace(layer, "sequence_parallel", False):
        _OUTPUT.replace(layer, "allreduce_dgrad", True)


def replace_sharded_state_dict(model: Any, new: Callable[..., Any]) -> None:
    """Of a GPTModel: what a distributed checkpoint of it holds."""
    _ADAPTERS.replace(model, "sharded_state_dict", new, parameters=("prefix", "sharded_offsets", "metadata"))


def replace_inverse_frequencies(model: Any, frequencies: list[float]) -> None:
    """Of the rotary embedding of a GPTModel; same number, type and device."""
    import torch

    plain = _ROTARY.get(model.rotary_pos_emb, "inv_freq")
    if plain.shape != (len(frequencies),):
        _ROTARY.fail(f"inv_freq has the shape {tuple(plain.shape)}, not ({len(frequencies)},)")
    _ROTARY.replace(model.rotary_pos_emb, "inv_freq", torch.tensor(frequencies, dtype=plain.dtype).to(plain.device))


def init_model_parallel(model: Any) -> None:
    """NeMo's: Megatron's process groups for the sizes of its strategy."""
    import nemo.lightning._strategy_lib as library

    _GROUPS.get(library, "init_model_parallel", parameters=("model",))(model)


def norms_without_fp8() -> None:
    """A norm that is computed again asks Transformer Engine for its state in fp8, even where there is no fp8 and no
    Transformer Engine: megatron-core takes any value but None for a yes, and passes False."""
    import megatron.core.tensor_parallel.random as mcore_random

    owner = mcore_random.CheckpointWithoutOutput
    plain = _NORMS.get(owner, "__init__", parameters=("fp8",))
    if plain.__module__ == __name__:
        return

    def init(self: Any, fp8: Any = False) -> None:
        plain(self, fp8=fp8 or None)

    _NORMS.replace(owner, "__init__", init, source="72036565b771")
