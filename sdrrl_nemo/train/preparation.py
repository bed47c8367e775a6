"""What a run reads, checked before anything is written or loaded: settings, the model's sizes, the packed sets.

The recipe calls these functions one by one, ``--dry-run`` all of them through ``read_inputs``: a dry run finds
whatever would stop the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PretrainedConfig

from sdrrl_nemo.common.cli import is_rank_zero
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import require
from sdrrl_nemo.common.precision import AUTO
from sdrrl_nemo.common.precision import resolve as resolve_precision
from sdrrl_nemo.compat.transformers5 import load_tokenizer, token_count
from sdrrl_nemo.data.packing.blend_files import manifest_of
from sdrrl_nemo.data.packing.packed import PackedDataset, PackedSamples, rendering
from sdrrl_nemo.data.text.tokenizer import load_chat, tokenizer_sha256
from sdrrl_nemo.model.attention import Kernel, PackedRows, chosen_attention
from sdrrl_nemo.model.families import check_window
from sdrrl_nemo.model.layer_spec import chosen_layers, has_transformer_engine
from sdrrl_nemo.model.provider import gpt_config, padded_heads, read_hf_config
from sdrrl_nemo.model.published.transformers_reference import check_rotary, head_size
from sdrrl_nemo.model.published.weight_files import check_weights
from sdrrl_nemo.train.batches import MicroBatches, Mixture, Schedule
from sdrrl_nemo.train.blend.chosen import ChosenSet, chosen_sets, objective
from sdrrl_nemo.train.blend.opened import open_blend
from sdrrl_nemo.train.blend.record import record_of
from sdrrl_nemo.train.config import RunConfig, check
from sdrrl_nemo.train.loss import check_kernel
from sdrrl_nemo.train.megatron_options.option_checks import check_option_machine, check_option_sizes
from sdrrl_nemo.train.megatron_options.option_settings import notes, row_multiple


@dataclass(frozen=True)
class Inputs:
    """A run whose settings, model and data fit together.

    ``batches``: the training set as micro-batches with the weights of Eq. 6; ``held_out``: the same of the held-out
    set, where there is one; ``steps``: length of the run in optimiser steps; ``tokens``: ids that the tokenizer gives
    and the sets were packed for, which a model can have more rows than.
    """

    hf: PretrainedConfig
    batches: MicroBatches
    held_out: MicroBatches | None
    steps: int
    tokens: int

    @classmethod
    def fitting(
        cls,
        config: RunConfig,
        hf: PretrainedConfig,
        batches: MicroBatches,
        held_out: MicroBatches | None,
        steps: int,
    ) -> Inputs:
        """All together, once the longest sample is known to fit into the model's positions."""
        sets = [b.dataset for b in (batches, held_out) if b is not None]
        longest = max(int(d.lengths.max()) for d in sets)
        check_window(hf, longest, f"{config.model.hf_path}/config.json")
        known = [token_count(load_tokenizer(config.model.hf_path)), *(int(d.manifest["vocab_size"]) for d in sets)]
        return cls(hf, batches, held_out, steps, max(known))


def read_inputs(config: RunConfig, world_size: int) -> Inputs:
    """Settings, then the model's sizes, then data: the cheap checks come first. SdrrlError says what is wrong."""
    check_settings(config, world_size)
    hf = model_sizes(config)
    batches, held_out = weighted_batches(config, hf.vocab_size)
    return Inputs.fitting(config, hf, batches, held_out, total_steps(config, batches))


def check_settings(config: RunConfig, world_size: int) -> None:
    """What can be known without model and data: layout, batch sizes, precision, the loss kernel on this device."""
    check(config, world_size)
    if not config.data.path and not config.data.blend:
        raise SdrrlError("missing required key 'data.path', or 'data.blend' for several packed sets")
    config.trainer.precision = resolve_precision(config.trainer.precision, "bf16", "fp32")
    check_kernel(config.loss.kernel, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if config.wandb.project:
        require("wandb", "wandb", "wandb")


def check_machine(config: RunConfig) -> None:
    """What this machine lacks for the run, or how it differs from what was asked for; a dry run may be elsewhere.

    Says which options no card has run yet.
    """
    gpu = torch.cuda.is_available()
    if config.trainer.accelerator == "gpu" and not gpu:
        raise SdrrlError(
            "trainer.accelerator: gpu, but CUDA is not available here (sdrrl doctor says why); start it on a machine "
            "with GPUs, or set trainer.accelerator=cpu"
        )
    if config.model.layers == "te" and not has_transformer_engine():
        raise SdrrlError(
            "model.layers: te needs Transformer Engine and a GPU, and one is missing here (sdrrl doctor says which); "
            "set model.layers=auto or local"
        )
    layers = chosen_layers(config.model.layers, config.trainer.precision, config.data.packed)
    check_option_machine(config.megatron, layers, torch.cuda.get_device_capability() if gpu else None)
    if is_rank_zero():
        print("".join(f"note: {note}\n" for note in notes(config.megatron)), end="")


def layers_of(config: RunConfig, hf: PretrainedConfig) -> tuple[str, Kernel | None]:
    """(``te`` or ``local``, attention of local layers over packed rows or None where there are none) on this machine.

    SdrrlError where ``model.attention`` asks for what cannot be had, or for what is not used.
    """
    m, packed = config.model, config.data.packed
    layers = chosen_layers(m.layers, config.trainer.precision, packed)
    if layers == "local" and packed:
        return layers, chosen_attention(m.attention, packed_rows(config, hf))
    if m.attention != AUTO:
        which = "data.packed is false" if layers == "local" else "the layers here are Transformer Engine's"
        raise SdrrlError(
            f"model.attention: {m.attention} is of local layers over packed rows, and {which}; set model.attention=auto"
        )
    return layers, None


def layers_in_words(layers: str, attention: Kernel | None) -> str:
    """What a run says of its layers when it starts."""
    if layers == "te":
        return "Transformer Engine's layers"
    return f"local layers, packed rows by {attention.words} ({attention.name})" if attention else "local layers"


def packed_rows(config: RunConfig, hf: PretrainedConfig) -> PackedRows:
    """What attention over packed rows has to take in this run."""
    return PackedRows(config.trainer.precision, head_size(hf), config.trainer.cp)


def model_sizes(config: RunConfig) -> PretrainedConfig:
    """The model's Hugging Face configuration; SdrrlError where Megatron cannot build it in this layout, where its
    weight files are not what the configuration asks for, or its rotary positions not what transformers makes of them.
    """
    folder = Path(config.model.hf_path)
    hf = read_hf_config(folder)
    check_weights(folder)
    check_rotary(folder, hf)
    # built once for its checks alone, which come before a byte of the data is hashed
    gpt_config(hf, seq_length=1, tp=config.trainer.tp, pp=config.trainer.pp, pad_heads_to=config.model.pad_heads_to)
    if config.lora.rank and hf.hidden_size % config.trainer.tp:
        raise SdrrlError(
            f"trainer.tp={config.trainer.tp} does not divide the hidden size {hf.hidden_size}: LoRA needs it"
        )
    _check_option_sizes(config, hf)
    return hf


def _check_option_sizes(config: RunConfig, hf: PretrainedConfig) -> None:
    """SdrrlError where the options of ``megatron`` do not go with the model's sizes on a rank of this layout."""
    t = config.trainer
    heads, groups = padded_heads(hf, config.model.pad_heads_to)
    width = head_size(hf)
    products = {
        "hidden size": hf.hidden_size,
        "width of the queries, keys and values": (heads + 2 * groups) * width // t.tp,
        "width of the heads": heads * width // t.tp,
        "feed-forward size": hf.intermediate_size // t.tp,
    }
    check_option_sizes(config.megatron, hf.num_hidden_layers // (t.pp * t.vpp), products)


def weighted_batches(config: RunConfig, vocab_size: int) -> tuple[MicroBatches, MicroBatches | None]:
    """Micro-batches of the training set and of the held-out one, every answer token with its weight of Eq. 6.

    The rows of both sets have the same length, so that the model is built for one shape.
    """
    if chosen := chosen_sets(config.data):
        return _blended(config, vocab_size, chosen)
    path, name, validation = config.data.path, config.data.name, config.data.validation
    train = open_data(config, vocab_size, name)
    if not validation:
        return micro_batches(config, train), None
    held = open_data(config, vocab_size, validation)
    if held.subset_names != train.subset_names:
        raise SdrrlError(
            f"{path}: '{validation}' has the subsets {', '.join(held.subset_names)}, "
            f"'{name}' has {', '.join(train.subset_names)}; both must come from one preprocessing"
        )
    length = max(micro_batches(config, d).seq_length for d in (train, held))
    return micro_batches(config, train, length), micro_batches(config, held, length)


def _blended(config: RunConfig, vocab_size: int, chosen: list[ChosenSet]) -> tuple[MicroBatches, MicroBatches | None]:
    """The same of several sets: rows in the blend's order, tokens with the weights that its draws and lambda_d give."""
    fingerprint = model_tokenizer(config, vocab_size, chosen[0].prefix)
    blend = open_blend(config.data, chosen, lambda prefix: open_set(config, vocab_size, prefix, fingerprint))
    schedule = blend.schedule(config.trainer.global_batch_size, config.seed)
    steps, weights = steps_of(config, schedule), blend.weights()
    mixture = Mixture(weights, blend.steps_a_draw(schedule, steps), record_of(blend, schedule, steps))
    plain = Mixture(weights)  # of a held-out set every sample comes once

    def train(length: int) -> MicroBatches:
        return micro_batches(config, blend.train, length, schedule, mixture)

    def held_out(length: int) -> MicroBatches | None:
        return micro_batches(config, blend.held_out, length, None, plain) if blend.held_out is not None else None

    length = max(b.seq_length for b in (train(0), held_out(0)) if b is not None)
    return train(length), held_out(length)


def open_data(config: RunConfig, vocab_size: int, name: str) -> PackedDataset:
    """The verified packed set ``name`` of ``data.path``; SdrrlError when tokenizer or vocabulary are not the
    model's."""
    prefix = Path(config.data.path) / name
    return open_set(config, vocab_size, prefix, model_tokenizer(config, vocab_size, prefix))


def model_tokenizer(config: RunConfig, vocab_size: int, prefix: Path) -> str:
    """Fingerprint of the model's tokenizer with the chat template of the packed set ``prefix``.

    A model can have more rows than its tokenizer has tokens (Qwen2.5 does), never fewer.
    """
    tokenizer = load_chat(config.model.hf_path, **rendering(prefix.parent, prefix.name)).tokenizer
    if (tokens := token_count(tokenizer)) > vocab_size:
        raise SdrrlError(
            f"{config.model.hf_path}/config.json: the tokenizer has {tokens} tokens, the model only vocab_size = "
            f"{vocab_size} rows; one of the two is of another model"
        )
    return tokenizer_sha256(tokenizer)


def open_set(config: RunConfig, vocab_size: int, prefix: Path, tokenizer: str) -> PackedDataset:
    """The verified packed set ``prefix``; SdrrlError when it was packed with another tokenizer than the one of this
    fingerprint, or for more tokens than the model has rows."""
    dataset = PackedDataset(prefix.parent, prefix.name, tokenizer)
    packed_for = int(dataset.manifest["vocab_size"])
    if packed_for > vocab_size:
        raise SdrrlError(
            f"{manifest_of(prefix)}: packed for a vocabulary of {packed_for}, "
            f"{config.model.hf_path} has {vocab_size}; preprocess again with this model"
        )
    return dataset


def micro_batches(
    config: RunConfig,
    dataset: PackedSamples,
    seq_length: int = 0,
    schedule: Schedule | None = None,
    mixture: Mixture | None = None,
) -> MicroBatches:
    """Order, weights and micro-batch builder of this run; rows have at least ``seq_length`` tokens. Without a
    ``schedule`` every row comes once an epoch, without a ``mixture`` every sample counts as Eq. 6 says."""
    rows = MicroBatches.row_count(dataset, config.data.packed)
    if mixture is None and config.data.objective:
        names = dataset.subset_names
        mixture = Mixture(np.asarray(objective(config.data, names, [], [])))
    return MicroBatches(
        dataset,
        packed=config.data.packed,
        micro_batch_size=config.trainer.micro_batch_size,
        reduction=config.loss.sample_reduction,
        schedule=schedule or Schedule(rows, config.trainer.global_batch_size, config.seed),
        context_parallel_size=config.trainer.cp,
        row_multiple=row_multiple(
            config.megatron, config.trainer.tp, config.trainer.cp, config.trainer.sequence_parallel
        ),
        seq_length=seq_length,
        normalise=config.loss.normalise,
        mixture=mixture,
    )


def total_steps(config: RunConfig, batches: MicroBatches) -> int:
    """Length of the run in optimiser steps."""
    return steps_of(config, batches.schedule)


def steps_of(config: RunConfig, schedule: Schedule) -> int:
    """The same by the schedule alone."""
    return config.trainer.max_steps or math.ceil(config.trainer.epochs * schedule.steps_per_epoch)
