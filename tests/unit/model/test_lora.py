"""LoRA's settings, its initial matrices and the update that export adds; training: tests/distributed/test_lora.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.start import prepare
from sdrrl_nemo.train.config import RunConfig, check


def _config(tmp_path: Path, *overrides: str) -> RunConfig:
    path = tmp_path / "config.yaml"
    path.write_text("run_dir: r\nmodel: {hf_path: m}\ndata: {path: d}\n")
    return load_config(RunConfig, path, ["lora.rank=8", *overrides])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lora.rank=-1", "rank must not be negative"),
        ("lora.alpha=0", "alpha must be positive"),
        ("lora.dropout=1", "dropout in"),
        ("lora.rank=3 trainer.tp=2", "lora.rank=3 is not a multiple of trainer.tp=2"),
        ("lora.target_modules=[]", "lora.target_modules: empty"),
        ("lora.target_modules=[linear_qkv,linear_qkv]", "a name twice"),
        ("lora.target_modules=[q_proj]", "'q_proj' is unknown; choose from linear_qkv, linear_proj"),
    ],
)
def test_settings_that_cannot_work(change: str, message: str, tmp_path: Path) -> None:
    config = _config(tmp_path, *change.split())
    with pytest.raises(SdrrlError, match=r"^[^\n]*$") as e:
        check(config, 2)
    assert message in str(e.value)


def test_settings_that_work(tmp_path: Path) -> None:
    assert check(_config(tmp_path, "trainer.tp=2", "lora.target_modules=[linear_fc2]"), 4) == 2


def test_the_first_a_does_not_depend_on_zero_heads() -> None:
    prepare()
    from sdrrl_nemo.model.lora import _initial

    plain = _initial("decoder.layers.3.self_attention.linear_proj", 16, 256, 256, seed=7)
    padded = _initial("decoder.layers.3.self_attention.linear_proj", 16, 320, 256, seed=7)
    assert torch.equal(padded[:, :256], plain) and not padded[:, 256:].any()
    assert float(plain.std()) == pytest.approx((2 / (16 + 256)) ** 0.5, rel=0.05)
    other = _initial("decoder.layers.4.self_attention.linear_proj", 16, 256, 256, seed=7)
    assert not torch.equal(other, plain)


def test_the_update_of_a_weight() -> None:
    prepare()
    from sdrrl_nemo.model.lora import Lora, update

    lora = Lora(rank=2, alpha=3.0, dropout=0.0, target_modules=("linear_fc2",), pad_heads_to=1, base="")
    a, b = torch.randn(5, 2, 4), torch.randn(5, 6, 2)  # five layers
    place = "decoder.layers.mlp.linear_fc2.adapter"
    tensors = {f"{place}.linear_in.weight": a, f"{place}.linear_out.weight": b}
    got = update(tensors, "decoder.layers.4.mlp.linear_fc2.weight", lora)
    torch.testing.assert_close(got, 1.5 * b[4] @ a[4])
    assert update(tensors, "decoder.layers.4.mlp.linear_fc1.weight", lora) is None
    assert update(tensors, "decoder.layers.4.pre_mlp_layernorm.weight", lora) is None
    with pytest.raises(SdrrlError, match="has no tensor for"):
        update({}, "decoder.layers.4.mlp.linear_fc2.weight", lora)


def test_a_base_with_one_other_bit_is_another_base(tmp_path: Path) -> None:
    prepare()
    from sdrrl_nemo.model.lora import base_key

    save_file({"w": torch.tensor([1.0, 2.0])}, tmp_path / "model.safetensors")
    before = base_key(tmp_path)
    assert base_key(tmp_path) == before
    save_file({"w": torch.tensor([1.0, 2.0000002])}, tmp_path / "model.safetensors")
    assert base_key(tmp_path) != before
