"""One rank of test_kernels_tp: python kernels_tp_worker.py WORLD STORE RANK. Last line: digest of the results."""

from __future__ import annotations

import hashlib
import sys
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from sdrrl_kernels.api import cross_entropy, linear_cross_entropy
from sdrrl_kernels.reference import IGNORE_INDEX, reference_token_losses
from sdrrl_nemo.compat import login_node
from tests.unit.kernels import rounding
from tests.unit.kernels.loss_cases import HALF_ULP, SMALLEST, SUBSETS, UPSTREAM, Case, exact, make, run, torch_fp32

# (V, columns a rank): the grid of test_cross_entropy.py, whole shards and padded ones
SHAPES = (
    (128, 64),
    (1000, 512),
    (64, 64),  # the second rank holds nothing but padding
    (32000, 16000),
    (32003, 16064),
    (49152, 24576),
    (64000, 32000),
    (128256, 64128),
)


def check_logits(rank: int, world: int, kernel: str, case: Case, width: int, digest: list[Tensor]) -> None:
    """Slices of ``width`` columns; error against float64 at most 1.5 x torch's fp32 on whole logits + one rounding."""
    local = slice(rank * width, (rank + 1) * width)
    piece = Case(case.logits[:, local].contiguous(), case.labels, case.weights, case.subset, case.vocab)
    upstream = torch.tensor(UPSTREAM)
    for reduction in ("sum", "none"):
        loss, gradient, out = run(
            piece,
            kernel,
            upstream,
            vocab_start=rank * width,
            tp_group=dist.group.WORLD,
            reduction=reduction,
            return_logsumexp=True,
        )
        losses64, gradient64 = exact(case, upstream)
        losses32, gradient32 = torch_fp32(case, upstream)
        live = (case.labels != IGNORE_INDEX) & (case.weights != 0)
        assert bool((gradient[~live] == 0).all())
        digest += [loss, out.subset_sums, out.subset_counts, out.logsumexp]
        if not bool(live.any()):
            assert not bool(loss.any())
            continue
        row = (case.weights.double() * UPSTREAM)[live, None]
        whole = torch.zeros(case.logits.shape, dtype=torch.float64)
        whole[:, : case.vocab] = gradient64
        compare = torch.zeros(case.logits.shape, dtype=torch.float64)
        compare[:, : case.vocab] = gradient32.double()
        ours = ((gradient.double() - whole[:, local])[live].abs() / row).max()
        theirs = ((compare - whole)[live].abs() / row).max()
        eps = HALF_ULP[case.logits.dtype] + float((SMALLEST[case.logits.dtype] / row).max())
        assert float(ours) <= 1.5 * float(theirs) + eps, (kernel, case.vocab, reduction, float(ours), float(theirs))
        total, total32 = float(losses64.sum()), float(losses32.sum())
        bound = 1.5 * abs(total32 - total) + 4e-7 * float(losses64.abs().sum())
        assert abs(float(loss.double().sum()) - total) <= bound, (float(loss.sum()), total)


def check_linear(
    rank: int, world: int, kernel: str, sequence_parallel: bool, reduction: str, digest: list[Tensor]
) -> None:
    """With a softcap where losses are summed, with a bias where rows are split: each alone, both and neither."""
    n, width, vocab, padded = 24, 16, 203, 256
    case = make(n, vocab, torch.float32, 5)
    case.weights.clamp_(max=10)
    g = torch.Generator().manual_seed(0)
    hidden, table = torch.randn(n, width, generator=g), torch.randn(padded, width, generator=g)
    local = slice(rank * padded // world, (rank + 1) * padded // world)
    rows = slice(rank * n // world, (rank + 1) * n // world) if sequence_parallel else slice(0, n)
    bias, cap = torch.randn(padded, generator=g) * sequence_parallel, 5.0 if reduction == "sum" else 0.0
    h, t, b = (x.clone().requires_grad_() for x in (hidden[rows], table[local], bias[local]))
    upstream = torch.randn(n, generator=g) if reduction == "none" else torch.tensor(UPSTREAM)
    out = linear_cross_entropy(
        h,
        t,
        case.labels,
        case.weights,
        case.subset,
        SUBSETS,
        bias=b if sequence_parallel else None,
        softcap=cap or None,
        vocab_start=local.start,
        vocab_size=vocab,
        tp_group=dist.group.WORLD,
        sequence_parallel=sequence_parallel,
        reduction=reduction,
        rows_per_chunk=7,
        kernel=kernel,
    )
    (out.loss * upstream).sum().backward()
    h64, t64, b64 = (x.double().requires_grad_() for x in (hidden, table, bias))
    logits = (h64 @ t64.t() + b64)[:, :vocab]
    token = reference_token_losses(logits, case.labels, case.weights.double(), softcap=cap)
    (token * upstream.double()).sum().backward()
    assert (b.grad is not None) is sequence_parallel
    compared = ((h, h64, rows), (t, t64, local), (b, b64, local))
    for found, whole, mine in compared[: 3 if sequence_parallel else 2]:
        _assert_slice(found.grad, whole.grad, mine)
    digest += [out.loss.detach(), out.subset_sums]


def _assert_slice(found: Tensor | None, whole: Tensor | None, mine: slice) -> None:
    assert found is not None
    assert whole is not None
    torch.testing.assert_close(found.double(), whole[mine], rtol=1e-4, atol=2e-6 * float(whole.abs().max()))


def check_bad_labels(rank: int, world: int, kernel: str, digest: list[Tensor]) -> None:
    """A label of no rank: NaN and flagged on every rank; those of the other rank are nothing bad."""
    case = make(12, 100, torch.float32, 3, padded=128)
    local = slice(rank * 128 // world, (rank + 1) * 128 // world)
    for bad in (None, 100, 127, 128, -1):
        labels = case.labels.abs() % 100
        if bad is not None:
            labels[5], case.weights[5] = bad, 1.0
        piece = Case(case.logits[:, local].contiguous(), labels, case.weights, case.subset, case.vocab)
        options: dict[str, Any] = {"vocab_start": local.start, "tp_group": dist.group.WORLD, "reduction": "none"}
        loss, _, out = run(piece, kernel, torch.tensor(1.0), **options)
        assert torch.isnan(loss).nonzero().flatten().tolist() == ([] if bad is None else [5])
        assert bool(out.bad_labels) is (bad is not None)
        digest.append(torch.nan_to_num(loss, nan=-1.0))


def check_megatron_layer(rank: int, world: int, sequence_parallel: bool, fused: bool, cap: float) -> None:
    """megatron-core's own vocab-parallel output layer, sequence first: its logits, or its weight in the fused form.

    With a softcap (``cap`` > 0) the layer has a bias too.
    """
    from megatron.core import parallel_state
    from megatron.core.model_parallel_config import ModelParallelConfig
    from megatron.core.tensor_parallel import ColumnParallelLinear

    config = ModelParallelConfig(
        tensor_model_parallel_size=world,
        sequence_parallel=sequence_parallel,
        use_cpu_initialization=True,
        params_dtype=torch.float32,
    )
    layer = ColumnParallelLinear(8, 64, config=config, init_method=torch.nn.init.normal_, bias=cap > 0)
    case = make(12, 61, torch.float32, 3, padded=64)
    case.weights.clamp_(max=10)
    g = torch.Generator().manual_seed(0)
    hidden, table, bias = (torch.randn(*shape, generator=g) for shape in ((6, 2, 8), (64, 8), (64,)))
    local = slice(rank * 64 // world, (rank + 1) * 64 // world)
    rows = slice(rank * 6 // world, (rank + 1) * 6 // world) if sequence_parallel else slice(0, 6)
    h = hidden[rows].clone().requires_grad_()
    with torch.no_grad():
        layer.weight.copy_(table[local])
        if cap:
            layer.bias.copy_(bias[local])
    common: dict[str, Any] = {
        "vocab_start": local.start,
        "vocab_size": case.vocab,
        "tp_group": parallel_state.get_tensor_model_parallel_group(),
        "expected_upstream": 1.0,
        "softcap": cap or None,
    }
    rest = (case.labels, case.weights, case.subset, SUBSETS)
    if fused:
        common |= {"bias": layer.bias, "sequence_parallel": sequence_parallel, "rows_per_chunk": 5}
        out = linear_cross_entropy(h.reshape(-1, 8), layer.weight, *rest, **common)
    else:
        out = cross_entropy(layer(h)[0].reshape(12, -1), *rest, **common)
    out.loss.backward()
    h64, t64, b64 = (x.double().requires_grad_() for x in (hidden, table, bias if cap else bias * 0))
    logits = (h64 @ t64.t() + b64).view(12, 64)[:, : case.vocab]
    token = reference_token_losses(logits, case.labels, case.weights.double(), softcap=cap)
    token.sum().backward()
    assert float(out.loss.detach()) == pytest.approx(float(token.detach().sum()), rel=2e-6)
    _assert_slice(h.grad, h64.grad, rows)
    _assert_slice(layer.weight.grad, t64.grad, local)
    if cap:
        _assert_slice(layer.bias.grad, b64.grad, local)


class Head(torch.nn.Module):
    """An output layer with a bias, whose weight can be the input embedding too, as in megatron-core's tied models."""

    def __init__(self, weight: Tensor, tied: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.clone())
        self.bias = torch.nn.Parameter(weight[:, 0].clone())
        if tied:
            self.weight.zero_out_wgrad = True  # type: ignore[attr-defined] # LanguageModule sets it so
        self.tied = tied

    def forward(self, hidden: Tensor, case: Case, **options: Any) -> Tensor:
        if self.tied:
            hidden = hidden + torch.nn.functional.embedding(torch.arange(hidden.shape[0]) // 2, self.weight)
        rest = (case.labels, case.weights, case.subset, SUBSETS)
        options |= {"bias": self.bias, "expected_upstream": 1.0, "rows_per_chunk": 5}
        return linear_cross_entropy(hidden, self.weight, *rest, **options).loss


def main_gradients(
    rank: int, world: int, sequence_parallel: bool, tied: bool, overlap: bool, dtype: torch.dtype, into_main: bool
) -> Tensor:
    """Sums of megatron-core's DistributedDataParallel after two micro-batches, fp32 [64/tp, 9]: the weight's, and in
    the last column the bias's."""
    from megatron.core import parallel_state
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
    from megatron.core.transformer import TransformerConfig

    g = torch.Generator().manual_seed(0)
    table = torch.randn(64, 8, generator=g)[rank * 64 // world : (rank + 1) * 64 // world].to(dtype)
    config = TransformerConfig(
        num_layers=1, hidden_size=8, num_attention_heads=2, calculate_per_token_loss=True,
        tensor_model_parallel_size=world, sequence_parallel=sequence_parallel, params_dtype=dtype,
    )  # fmt: skip
    settings = DistributedDataParallelConfig(grad_reduce_in_fp32=True, overlap_grad_reduce=overlap)
    model = DistributedDataParallel(config, settings, Head(table, tied))
    model.zero_grad_buffer()
    for micro in range(2):
        case = make(12, 61, dtype, micro, padded=64)
        case.weights.clamp_(max=10)
        hidden = torch.randn(12, 8, generator=g).to(dtype)
        rows = slice(rank * 12 // world, (rank + 1) * 12 // world) if sequence_parallel else slice(0, 12)
        loss = model(
            hidden[rows].requires_grad_(), case, vocab_start=rank * 64 // world, vocab_size=61,
            tp_group=parallel_state.get_tensor_model_parallel_group(), sequence_parallel=sequence_parallel,
            into_main_grad=into_main,
        )  # fmt: skip
        with nullcontext() if micro else model.no_sync():  # the ranks' sums are added up after the last micro-batch
            loss.backward()
    model.finish_grad_sync()
    weight, bias = model.module.weight, model.module.bias
    for parameter in (weight, bias):
        assert parameter.grad is None and parameter.grad_added_to_main_grad == into_main
    return torch.cat([weight.main_grad, bias.main_grad[:, None]], 1)


def check_main_gradients(rank: int, world: int) -> None:
    """Gradients added to Megatron's sums inside the loss, and by Megatron: the same but for their rounding."""
    for sequence_parallel, tied, overlap, dtype in (
        (True, False, True, torch.bfloat16),
        (True, True, True, torch.float32),
        (False, True, False, torch.float32),
    ):
        inside, by_megatron = (
            main_gradients(rank, world, sequence_parallel, tied, overlap, dtype, into) for into in (True, False)
        )
        for ours, theirs in ((inside[:, :8], by_megatron[:, :8]), (inside[:, 8], by_megatron[:, 8])):
            scale, half_ulp = float(theirs.abs().max()), 2.0 ** (-8 if dtype is torch.bfloat16 else -23)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=4 * half_ulp * scale)
            assert scale > 0


def check_megatron_layers(rank: int, world: int) -> None:
    """Both forms of the loss, without and with sequence parallelism, without and with bias and softcap."""
    login_node.protect()
    from megatron.core import parallel_state

    device: Any = torch.device("cpu")
    torch.cuda.current_device = lambda: device  # all of CUDA that the layer asks for; sdrrl_nemo.compat.cpu brings NeMo
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=world)
    for sequence_parallel in (False, True):
        for fused in (False, True):
            for cap in (0.0, 4.0):
                check_megatron_layer(rank, world, sequence_parallel, fused, cap)
    check_main_gradients(rank, world)


def main() -> None:
    world, store, rank = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(1)
    rounding.interpreter._convert_float = rounding.to_nearest
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    digest: list[Tensor] = []
    for kernel in ("torch", "triton"):
        for turn, (vocab, width) in enumerate(SHAPES):
            for i, dtype in enumerate((torch.float32, torch.bfloat16, torch.float16)):
                kind = ("normal", "extreme", "ignored")[(turn + i) % 3]
                rows, padded = 20 if vocab <= 1000 else 4, width * world
                case = make(rows, vocab, dtype, vocab, kind, padded if padded > vocab else None)
                check_logits(rank, world, kernel, case, width, digest)
        check_bad_labels(rank, world, kernel, digest)
        for sequence_parallel in (False, True):
            for reduction in ("sum", "none"):
                check_linear(rank, world, kernel, sequence_parallel, reduction, digest)
    check_megatron_layers(rank, world)
    blob = b"".join(t.contiguous().numpy().tobytes() for t in digest)
    dist.destroy_process_group()
    print(hashlib.sha256(blob).hexdigest())


if __name__ == "__main__":
    main()
