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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden_size]; torch's fused kernel on a GPU, on a CPU one that keeps nothing but its input."""
        if x.device.type == "cuda":
            return super().forward(x)
        return _RMSNormKeepingInput.apply(x, self.weight, self.eps)


class _RMSNormKeepingInput(torch.autograd.Function):
    """x / rms(x) * weight in at least fp32. torch's CPU RMSNorm is made of single operations, which keep two tensors of
    the input's size; this keeps the input and a number a row (Zhang & Sennrich 2019, arXiv 1910.07467, eq. 4).
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        unit, grad = x.to(scale.dtype) * scale, grads[0].to(scale.dtype)
        scaled = grad * weight
        dx = (scaled - unit * (scaled * unit).mean(-1, keepdim=True)) * scale
        dw = (grad * unit).flatten(0, -2).sum(0)
        return dx.to(x.dtype), dw.to(weight.dtype), None
