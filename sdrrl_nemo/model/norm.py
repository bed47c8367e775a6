"""RMSNorm of the local layer spec, usable under sequence parallelism."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig


class RMSNorm(torch.nn.RMSNorm):
    """torch's RMSNorm over the last dimension, with the mark that megatron-core's own local norm lacks.

    Under sequence parallelism each tensor-parallel rank sees its part of the tokens, so the weight's gradient must be
    summed over the ranks; megatron-core does that for parameters marked ``sequence_parallel``
    (``finalize_model_grads``).
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
