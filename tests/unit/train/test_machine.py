"""What a run asks of its machine: a GPU, Transformer Engine, deterministic kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.deterministic import ENVIRONMENT, same_bits
from sdrrl_nemo.model import layer_spec
from sdrrl_nemo.train import preparation
from sdrrl_nemo.train.config import RunConfig, check


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with a GPU and Transformer Engine, or what a test takes away from it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    for module in (layer_spec, preparation):
        monkeypatch.setattr(module, "has_transformer_engine", lambda: True)
    return monkeypatch


def test_a_gpu_that_is_asked_for_must_be_there(here: pytest.MonkeyPatch) -> None:
    config = RunConfig()
    config.trainer.accelerator = "gpu"
    preparation.check_machine(config)
    here.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SdrrlError, match=r"^trainer\.accelerator: gpu, but CUDA is not available here"):
        preparation.check_machine(config)
    config.trainer.accelerator = "cpu"
    preparation.check_machine(config)


def test_layers_that_are_asked_for_must_be_there(here: pytest.MonkeyPatch) -> None:
    config = RunConfig()
    config.model.layers = "te"
    preparation.check_machine(config)
    here.setattr(preparation, "has_transformer_engine", lambda: False)
    with pytest.raises(SdrrlError, match=r"^model\.layers: te needs Transformer Engine and a GPU"):
        preparation.check_machine(config)


@pytest.mark.parametrize(
    ("layers", "precision", "packed", "there", "chosen"),
    [
        ("auto", "bf16", True, True, "te"),
        ("auto", "bf16", True, False, "local"),
        ("auto", "fp32", True, True, "local"),
        ("auto", "fp32", False, True, "te"),
        ("local", "bf16", True, True, "local"),
    ],
)
def test_auto_takes_what_can_run(
    here: pytest.MonkeyPatch, layers: str, precision: str, packed: bool, there: bool, chosen: str
) -> None:
    here.setattr(layer_spec, "has_transformer_engine", lambda: there)
    assert layer_spec.chosen_layers(layers, precision, packed) == chosen


def test_no_attention_for_packed_rows_in_fp32() -> None:
    config = RunConfig()
    config.model.layers, config.trainer.precision = "te", "fp32"
    with pytest.raises(SdrrlError, match=r"^model\.layers: te has no attention for packed rows in fp32"):
        check(config, 1)
    config.data.packed = False
    assert check(config, 1) == 1
    config.trainer.accelerator = "tpu"
    with pytest.raises(SdrrlError, match=r"^trainer\.accelerator: 'tpu' is not one of auto, gpu, cpu"):
        check(config, 1)


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    for name in ENVIRONMENT:
        os.environ.pop(name, None)
    torch.use_deterministic_algorithms(False)


def test_deterministic_kernels_are_asked_for(deterministic: pytest.MonkeyPatch) -> None:
    deterministic.setenv("NCCL_ALGO", "Ring")  # a user's own choice among those that are deterministic
    same_bits()
    assert torch.are_deterministic_algorithms_enabled()
    assert {k: os.environ[k] for k in ENVIRONMENT} == {**ENVIRONMENT, "NCCL_ALGO": "Ring"}


def test_an_environment_that_asks_for_the_contrary_is_refused(deterministic: pytest.MonkeyPatch) -> None:
    deterministic.setenv("NVTE_ALLOW_NONDETERMINISTIC_ALGO", "1")
    with pytest.raises(SdrrlError, match=r"has NVTE_ALLOW_NONDETERMINISTIC_ALGO=1; unset it or set it to 0$"):
        same_bits()
    assert not torch.are_deterministic_algorithms_enabled()
