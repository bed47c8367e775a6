"""The model and the data as NeMo trains them: Megatron's GPT with the loss of Eq. 6 in it, the packed set's loader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from nemo.collections import llm
from nemo.lightning.pytorch.optim import MegatronOptimizerModule
from torch import Tensor
from torch.utils.data import DataLoader

from sdrrl_nemo.common.cli import is_rank_zero
from sdrrl_nemo.model.hf_bridge import load_hf_weights
from sdrrl_nemo.model.lora import Lora, add_adapters
from sdrrl_nemo.model.provider import gpt_config
from sdrrl_nemo.train.batches import MicroBatches, MicroBatchStream
from sdrrl_nemo.train.config import RunConfig
from sdrrl_nemo.train.loading.prefetch import Loader, Waiting
from sdrrl_nemo.train.loss import Eq6LossReduction, LabelFlag, LossInputs, attach_loss, sum_gradients
from sdrrl_nemo.train.megatron_options.option_build import let_gradients_in, set_options
from sdrrl_nemo.train.megatron_options.option_settings import NONE
from sdrrl_nemo.train.preparation import Inputs, layers_in_words, layers_of
from sdrrl_nemo.train.strategy import PackedDataSampler, rows_to_continue


def data_step(dataloader_iter: Iterator[Any]) -> dict[str, Tensor]:
    """Next micro-batch, on the device of this rank; ``max_seqlen`` stays on the host, where it is read."""
    item = next(dataloader_iter)
    batch = item[0] if isinstance(item, tuple) else item
    device = torch.cuda.current_device()
    return {k: v if k == "max_seqlen" else v.to(device, non_blocking=True) for k, v in batch.items()}


def forward_step(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Forward of one micro-batch; the last stage gives the loss vector, others their hidden states."""
    packed = None
    if "cu_seqlens" in batch:
        cu = batch["cu_seqlens"]
        # the longest sample, not the row: rotary positions then restart with every sample
        longest = int(batch["max_seqlen"])
        packed = PackedSeqParams(
            qkv_format="thd", cu_seqlens_q=cu, cu_seqlens_kv=cu, max_seqlen_q=longest, max_seqlen_kv=longest
        )
    out: Tensor = model(
        input_ids=batch["tokens"],
        position_ids=batch["position_ids"],
        attention_mask=None,
        labels=LossInputs(batch["labels"], batch["weights"], batch["subset_ids"], batch["live"]),
        packed_seq_params=packed,
    )
    return out


class SummingOptimizer(MegatronOptimizerModule):  # type: ignore[misc]
    """Megatron's optimiser whose gradients are sums over tokens, micro-batches and ranks, never means."""

    def finalize_model_grads(self, *args: Any, **kwargs: Any) -> None:
        """Called by the schedule after the last micro-batch."""
        sum_gradients(*args, **kwargs)


class SdrrlModel(llm.LlamaModel):  # type: ignore[misc]
    """NeMo's LlamaModel with the Eq. 6 reduction."""

    label_flag: LabelFlag
    """Set by ``build_model``."""

    def reinit(self) -> SdrrlModel:
        """Another chunk of the same model, for the interleaved pipeline schedule.

        NeMo's own way builds a fresh configuration from the first one's constructor arguments and so forgets what was
        set later: parallel sizes, hooks, forward step.
        """
        return SdrrlModel(self.config, tokenizer=None, optim=self.optim)

    @property  # NeMo looks for a property and calls anything else
    def training_loss_reduction(self) -> Eq6LossReduction:
        """Reduction of a training step; kept, because it remembers the losses of the micro-batches."""
        kept: Eq6LossReduction = self.__dict__.setdefault("_eq6_reduction", Eq6LossReduction())
        return kept

    @property
    def validation_loss_reduction(self) -> Eq6LossReduction:
        """Reduction of an evaluation step."""
        return Eq6LossReduction()


def build_model(
    config: RunConfig,
    run: Inputs,
    adapters: Lora | None,
    optimizer: SummingOptimizer,
    checkpoint: Path | None = None,
) -> SdrrlModel:
    """NeMo's model of this run, which continues from ``checkpoint`` if there is one. Its weights are not read here:
    Megatron builds each rank's part later, when the processes know their places, and then calls ``built``.
    """
    t, m = config.trainer, config.model
    layers, attention = layers_of(config, run.hf)
    if is_rank_zero():
        print(f"{config.run_dir}: {layers_in_words(layers, attention)}")
    gpt = gpt_config(
        run.hf,
        seq_length=run.batches.row_shape[1],
        tp=t.tp,
        pp=t.pp,
        pad_heads_to=m.pad_heads_to,
        layers=layers,
        attention=attention.name if attention else "sdpa",
    )
    gpt.deterministic_mode = t.deterministic
    gpt.vocab_size = rows_to_continue(checkpoint, run.hf.vocab_size, gpt.vocab_size, t.tp)
    set_options(gpt, config.megatron)
    subsets = len(run.batches.dataset.subset_names)
    labels = LabelFlag(run.tokens)

    def built(model: Any) -> None:
        """Called for each chunk of the model on each rank. The order matters: adapters are put beside weights that are
        there, and the loss takes the place of the output layer's."""
        rank = parallel_state.get_tensor_model_parallel_rank()
        load_hf_weights(model, m.hf_path, gpt, rank, t.tp)
        if adapters is not None:
            add_adapters(model, adapters, gpt, config.seed, rank, t.tp)
            if config.megatron.recompute_granularity != NONE:
                let_gradients_in(model)
        attach_loss(model, run.tokens, subsets, config.loss, labels)

    gpt.on_model_built = built
    gpt.forward_step_fn = forward_step
    gpt.data_step_fn = data_step
    out = SdrrlModel(gpt, tokenizer=None, optim=optimizer)
    out.label_flag = labels
    return out


class PackedDataModule(pl.LightningDataModule):
    """Serves the packed set; starts at the trainer's step, so a resumed run sees what an uninterrupted one sees.

    ``prefetch``: micro-batches made ahead of their use; ``waiting``: how long steps waited for theirs.
    """

    def __init__(self, batches: MicroBatches, global_batch_size: int, prefetch: int) -> None:
        super().__init__()
        self.batches, self.prefetch, self.waiting = batches, prefetch, Waiting()
        self.data_sampler = PackedDataSampler(batches, global_batch_size)

    def train_dataloader(self) -> DataLoader[Any]:
        """Endless loader of this data-parallel rank's micro-batches."""
        assert self.trainer is not None
        stream = MicroBatchStream(
            self.batches,
            first_step=self.trainer.global_step,
            dp_rank=parallel_state.get_data_parallel_rank(),
            dp_size=parallel_state.get_data_parallel_world_size(),
            cp_rank=parallel_state.get_context_parallel_rank(),
        )
        return DataLoader(Loader(stream, self.prefetch, self.waiting), batch_size=None, num_workers=0)
