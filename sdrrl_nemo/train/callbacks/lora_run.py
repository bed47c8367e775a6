"""A LoRA run: what its checkpoints say of the adapters, and dropout masks that a resumed run draws again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from megatron.core import parallel_state

from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.common.ranks import from_rank_zero
from sdrrl_nemo.common.seeding import derive_seed
from sdrrl_nemo.model.lora import Lora, base_key
from sdrrl_nemo.train.config import RunConfig

FACTS = "lora"
"""Key of the adapters' description in identity.json and in a checkpoint's common state."""


def lora_identity(config: RunConfig) -> dict[str, Any]:
    """Part of a run's identity; empty where all weights are trained. Reads the base model's files."""
    s = config.lora
    if not s.rank:
        return {}
    base = base_key(config.model.hf_path)
    lora = Lora(s.rank, s.alpha, s.dropout, tuple(s.target_modules), config.model.pad_heads_to, base)
    return {FACTS: lora.facts()}


def lora_of_run(config: RunConfig, identity_file: Path) -> Lora | None:
    """The run's adapters, from its identity file that rank 0 has written; None: all weights are trained."""
    return Lora.of(from_rank_zero(lambda: read_json(identity_file)[FACTS])) if config.lora.rank else None


class LoraCheckpoints(pl.Callback):
    """Writes the adapters' description into each checkpoint; seeds dropout by the step's number."""

    def __init__(self, lora: Lora, seed: int) -> None:
        self.lora, self.seed = lora, seed

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook; ``checkpoint`` goes to the common state of Megatron's checkpoint."""
        checkpoint[FACTS] = self.lora.facts()

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Masks follow from seed, step and data-parallel rank: equal on the ranks that share an input."""
        if self.lora.dropout:
            dp_rank = parallel_state.get_data_parallel_rank()
            torch.manual_seed(derive_seed(self.seed, "lora dropout", trainer.global_step, dp_rank))
