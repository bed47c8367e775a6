"""Sizes and tolerances of other projects' published tests, against our loss (see peer_adapters)."""

from __future__ import annotations

import pytest
import torch

from tests.unit.kernels.peer_adapters import liger_case, liger_linear_case, quack_case

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
QUACK_N = [192, 668, 1024, 1128, 4096, 32768, 128256, 262144]
LIGER_OPTIONS = [
    {"reduction": "sum"},
    {"reduction": "mean"},
    {"reduction": "none"},
    {"ignore_index": 2, "reduction": "mean"},
    {"ignore_index": -123, "reduction": "sum"},
    {"label_smoothing": 0.1},
    {"ignore_index": 1, "label_smoothing": 0.1},
    {"ignore_index": -300, "label_smoothing": 0.2},
    {"lse_square_scale": 1e-4},
    {"lse_square_scale": 1e-5, "label_smoothing": 0.2, "ignore_index": -42, "reduction": "sum"},
]


@pytest.mark.parametrize("n", QUACK_N)
@pytest.mark.parametrize("dtype", DTYPES)
def test_quack_sizes_torch(n: int, dtype: torch.dtype) -> None:
    quack_case(1, n, dtype, has_weight=True, device="cpu", kernel="torch")
    if n <= 4096:
        quack_case(289, n, dtype, has_weight=n % 2 == 0, device="cpu", kernel="torch")


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("n", QUACK_N)
def test_quack_sizes_triton(n: int) -> None:
    for dtype in DTYPES:
        quack_case(1, n, dtype, has_weight=False, device="cpu", kernel="triton")


@pytest.mark.slow
@pytest.mark.parametrize("n", QUACK_N)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 289])
@pytest.mark.parametrize("has_weight", [False, True])
def test_quack_whole_grid(n: int, dtype: torch.dtype, m: int, has_weight: bool) -> None:
    quack_case(m, n, dtype, has_weight, device="cpu", kernel="torch")


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("rows", "vocab"), [(4, 8), (63, 41)])
def test_liger_small_sizes(kernel: str, dtype: torch.dtype, rows: int, vocab: int) -> None:
    options = LIGER_OPTIONS
    if kernel == "triton" and rows > 8:  # the interpreter takes a second for each: in turn, all of them at 4 x 8
        options = options[DTYPES.index(dtype) // 2 :: 2]
    for each in options:
        liger_case(rows, vocab, dtype, "cpu", kernel, **dict(each))


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize(("kernel", "extras"), [("torch", False), ("torch", True), ("triton", False)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_liger_linear_odd_size(kernel: str, extras: bool, reduction: str, dtype: torch.dtype) -> None:
    liger_linear_case(4 * 47, 31, 123, dtype, reduction, kernel, extras)


@pytest.mark.slow
@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_liger_linear_large_size(reduction: str, dtype: torch.dtype, extras: bool) -> None:
    liger_linear_case(8 * 128, 1024, 4096, dtype, reduction, "torch", extras)


@pytest.mark.slow
@pytest.mark.parametrize("options", LIGER_OPTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_liger_weird_shape(options: dict[str, object], dtype: torch.dtype) -> None:
    liger_case(3 * 423, 32000, dtype, "cpu", "torch", **dict(options))
