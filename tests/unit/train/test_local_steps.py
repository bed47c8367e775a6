"""Steps of the local layers and of torch's Adam in fewer kernels: the same numbers, and how far "the same" goes."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from megatron.core.fusions.fused_bias_swiglu import bias_swiglu_impl
from torch import Tensor
from transformers import LlamaConfig

from sdrrl_nemo.compat.start import prepare
from sdrrl_nemo.compat.torch_adam import one_kernel
from sdrrl_nemo.model.provider import gpt_config

prepare()

OPTIONS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
SIZES = [(7, 5), (33,), (64, 3)]


def tensors(seed: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=g) for size in SIZES]


def adam_of(values: list[Tensor]) -> torch.optim.AdamW:
    return torch.optim.AdamW([torch.nn.Parameter(v.clone()) for v in values], **OPTIONS)


def parameters(adam: torch.optim.AdamW) -> list[Tensor]:
    return [p for group in adam.param_groups for p in group["params"]]


def take(adam: torch.optim.AdamW, steps: range) -> None:
    for step in steps:
        for p, gradient in zip(parameters(adam), tensors(100 + step), strict=True):
            p.grad = gradient
        adam.step()


def megatrons(*adams: torch.optim.Optimizer) -> Any:
    """As Megatron holds them: each in a part of its own, all in a chain."""
    return SimpleNamespace(chained_optimizers=[SimpleNamespace(optimizer=a) for a in adams])


def by_hand(steps: int) -> list[Tensor]:
    """AdamW of Loshchilov & Hutter 2019 (algorithm 2), in float64."""
    b1, b2 = OPTIONS["betas"]
    values = [v.double() for v in tensors(0)]
    moments = [(torch.zeros_like(v), torch.zeros_like(v)) for v in values]
    for t in range(1, steps + 1):
        for i, g in enumerate(tensors(99 + t)):
            m, v = moments[i]
            m, v = b1 * m + (1 - b1) * g.double(), b2 * v + (1 - b2) * g.double() ** 2
            moments[i] = m, v
            update = (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + OPTIONS["eps"])
            values[i] = values[i] - OPTIONS["lr"] * (update + OPTIONS["weight_decay"] * values[i])
    return values


def test_the_fused_adam_takes_the_steps_of_the_paper() -> None:
    adam, plain = adam_of(tensors(0)), adam_of(tensors(0))
    one_kernel(megatrons(adam))
    take(adam, range(6))
    take(plain, range(6))
    assert all(group["fused"] for group in adam.param_groups)
    for ours, theirs, exact in zip(parameters(adam), parameters(plain), by_hand(6), strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours, theirs, rtol=3e-7, atol=3e-8)  # torch's other kernel: rounding


def test_a_step_has_the_same_bits_however_the_parameters_are_cut() -> None:
    """The distributed optimiser cuts them by ranks."""
    whole, cut = adam_of([torch.cat([v.flatten() for v in tensors(0)])]), adam_of(tensors(0))
    one_kernel(megatrons(whole, cut))
    for step in range(4):
        gradients = tensors(100 + step)
        parameters(whole)[0].grad = torch.cat([g.flatten() for g in gradients])
        for p, g in zip(parameters(cut), gradients, strict=True):
            p.grad = g
        whole.step()
        cut.step()
    assert torch.equal(parameters(whole)[0], torch.cat([p.flatten() for p in parameters(cut)]))


@pytest.mark.parametrize("saved_fused", [False, True])
def test_a_loaded_state_goes_on(saved_fused: bool) -> None:
    """Of a checkpoint of this version or of one whose Adam was not fused."""
    straight, first = adam_of(tensors(0)), adam_of(tensors(0))
    one_kernel(megatrons(straight))
    take(straight, range(5))
    if saved_fused:
        one_kernel(megatrons(first))
    take(first, range(3))
    resumed = adam_of([p.detach() for p in parameters(first)])
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    one_kernel(megatrons(resumed))
    take(resumed, range(3, 5))
    assert {float(s["step"]) for s in resumed.state.values()} == {5.0}
    for a, b in zip(parameters(straight), parameters(resumed), strict=True):
        if saved_fused:
            assert torch.equal(a, b)
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_other_optimisers_are_left_alone() -> None:
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    one_kernel(SimpleNamespace(optimizer=sgd))
    one_kernel(SimpleNamespace(optimizer=None))  # a rank that holds no parameter of the part
    assert not any(group.get("fused") for group in sgd.param_groups)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_megatrons_swiglu_is_the_one_of_single_operations(dtype: torch.dtype, bias: bool) -> None:
    """The bits forward, rounding backward: its derivative is written out, autograd's is silu's and a product's."""
    g = torch.Generator().manual_seed(5)
    y, grad = torch.randn(9, 4, 24, generator=g).to(dtype), torch.randn(9, 4, 12, generator=g).to(dtype)
    b = torch.randn(24, generator=g).to(dtype) if bias else None
    fused, plain = y.clone().requires_grad_(), y.clone().requires_grad_()
    out = bias_swiglu_impl(fused, b)
    gate, up = (plain if b is None else plain + b).chunk(2, -1)
    expected = F.silu(gate) * up
    assert torch.equal(out, expected)
    out.backward(grad)
    expected.backward(grad)
    assert fused.grad is not None and plain.grad is not None
    tolerance = 2e-6 if dtype == torch.float32 else 2**-5
    torch.testing.assert_close(fused.grad, plain.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("gpu", [False, True])
def test_local_layers_take_it_with_and_without_a_gpu(monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    hf = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=64)
    made = gpt_config(hf, seq_length=8, layers="local")
    assert made.bias_activation_fusion and made.activation_func is F.silu and made.gated_linear_unit
