"""megatron-core's own blend over packed sets: its builder, its GPTDataset, its BlendedDataset."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import get_blend_from_list


def megatron_blend(data_path: Sequence[str], size: int, seq_length: int) -> BlendedDataset:
    """What ``--data-path w1 prefix1 w2 prefix2 ...`` becomes when ``size`` samples are asked for, all for training."""
    tokenizer = SimpleNamespace(eod=0, pad=0, unique_identifiers={"tokenizer": "packed"})
    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=seq_length,
        blend=get_blend_from_list(list(data_path)),
        split="1,0,0",
        path_to_cache=None,  # GPTDataset then keeps its indices beside the set
        tokenizer=tokenizer,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        mid_level_dataset_surplus=0.5,  # sets of a dozen samples need more to spare than its half per cent
    )
    blend, *_ = BlendedMegatronDatasetBuilder(GPTDataset, [size, 0, 0], lambda: True, config).build()
    assert isinstance(blend, BlendedDataset)
    return blend


def draws_of(blend: BlendedDataset) -> list[int]:
    """How often each set is drawn."""
    return np.bincount(blend.dataset_index, minlength=len(blend.datasets)).tolist()
