"""RMSNorm on a CPU: torch's in float64 is the reference, and autograd keeps the input and a number a row."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from sdrrl_nemo.model.norm import RMSNorm

WIDTH, EPS = 576, 1e-5


def module(dtype: torch.dtype, width: int = WIDTH) -> RMSNorm:
    norm = RMSNorm(SimpleNamespace(sequence_parallel=True), width, EPS).to(dtype)  # type: ignore[arg-type]
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    return norm


def random(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).mul(3).to(dtype)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("shape", [(7, 3), (490, 1), (5,)])
def test_outputs_and_gradients_are_torchs_in_float64(dtype: torch.dtype, bound: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    norm, x, upstream = module(dtype), random(*shape, WIDTH, dtype=dtype), random(*shape, WIDTH, dtype=dtype)
    x.requires_grad_()
    out = norm(x)
    out.backward(upstream)
    exact, weight = x.detach().double().requires_grad_(), norm.weight.detach().double().requires_grad_()
    expected = torch.nn.functional.rms_norm(exact, (WIDTH,), weight, EPS)
    expected.backward(upstream.double())
    pairs = [(out, expected), (x.grad, exact.grad), (norm.weight.grad, weight.grad)]
    for ours, theirs in pairs:
        assert ours is not None
        assert theirs is not None
        assert ours.dtype == dtype
        assert ((ours.double() - theirs).norm() / theirs.norm()).item() < bound


def test_gradients_against_differences() -> None:
    torch.manual_seed(4)
    norm, x = module(torch.float64, 6), random(4, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(norm, (x,))


def test_kept_for_the_backward_pass() -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    norm, x = module(torch.float32), random(490, 1, WIDTH, dtype=torch.float32).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        norm(x)
    assert sorted(t.numel() for t in kept) == sorted([x.numel(), WIDTH, 490])


def test_weight_is_marked_for_sequence_parallelism() -> None:
    assert module(torch.float32).weight.sequence_parallel is True  # type: ignore[attr-defined]
