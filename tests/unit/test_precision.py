"""What ``auto`` means on which machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdrrl_nemo.common import precision


@pytest.mark.skipif(torch.cuda.is_available(), reason="reads the CPU's flags, which a GPU makes irrelevant")
@pytest.mark.parametrize(
    ("text", "fast"),
    [
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("flags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("model name\t: has bf16 in its name\nflags\t: fpu\n", False),
    ],
)
def test_flags(text: str, fast: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    assert precision.has_fast_bf16(cpuinfo) is fast
    assert precision.has_fast_bf16(tmp_path / "absent") is False


@pytest.mark.parametrize(("fast", "word"), [(True, "bf16"), (False, "fp32")])
def test_only_auto_is_resolved(fast: bool, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda: fast)
    assert precision.resolve("auto", "bf16", "fp32") == word
    assert precision.resolve("fp32", "bf16", "fp32") == "fp32"
    assert precision.resolve("bf16", "bf16", "fp32") == "bf16"
