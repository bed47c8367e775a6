"""Our loss behind other projects' signatures, so that the sizes and tolerances of their own tests run against it.

A class weight w is a token weight w[label], a mean is a token weight 1 / (tokens kept): both are exact, no option of
the kernel is needed. Soft labels, predicted tokens and token accuracy have no counterpart here.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sdrrl_kernels.api import cross_entropy, linear_cross_entropy


def as_functional(
    x: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    lse_square_scale: float = 0.0,
    kernel: str = "auto",
) -> Tensor:
    """Signature of torch.nn.functional.cross_entropy, quack.cross_entropy and Liger's functional form."""
    kept = target != ignore_index
    token = torch.ones(target.shape, device=x.device)
    if weight is not None:
        token = weight.float()[torch.where(kept, target, 0)]
    if reduction == "mean":
        token = token / (token * kept).sum()
    return cross_entropy(
        x,
        target,
        token,
        torch.zeros_like(target),
        1,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=lse_square_scale,
        reduction="none" if reduction == "none" else "sum",
        in_place=False,
        kernel=kernel,
    ).loss


def quack_case(m: int, n: int, dtype: torch.dtype, has_weight: bool, device: str, kernel: str) -> None:
    """tests/test_cross_entropy.py::test_cross_entropy of Dao-AILab/quack: inputs, both passes, atol 5e-5, rtol 1e-5."""
    g = torch.Generator(device=device).manual_seed(0)
    x = (0.1 * torch.randn(m, n, generator=g, device=device, dtype=dtype)).requires_grad_()
    target = torch.randint(0, n, (m,), generator=g, device=device)
    weight = torch.rand(n, generator=g, device=device) + 0.1 if has_weight else None
    upstream = torch.randn(m, generator=g, device=device)
    ignored = target.clone()
    ignored[torch.rand(m, generator=g, device=device) < 0.3] = -100
    for labels in (target, ignored):
        reference = x.detach().clone().float().requires_grad_()
        loss = as_functional(x, labels, weight=weight, reduction="none", kernel=kernel)
        want = F.cross_entropy(reference, labels, weight=weight, reduction="none")
        (dx,) = torch.autograd.grad(loss, x, upstream)
        (dx_want,) = torch.autograd.grad(want, reference, upstream)
        assert loss.shape == (m,)
        assert loss.dtype == torch.float32
        assert bool((loss >= 0).all())
        assert bool((loss[labels == -100] == 0).all())
        torch.testing.assert_close(loss, want, atol=5e-5, rtol=1e-5)
        theirs = dx_want.to(dtype)
        far = (dx.float() - theirs.float()).abs() > 5e-5 + 1e-5 * theirs.float().abs()
        # half precision: an fp32 difference in the last digit may flip a rounding, one unit in the last place of bf16
        # is 6e-5 at 0.01; such elements must be rare, and no more than that unit apart
        assert float(far.float().mean()) <= (1e-4 if dtype != torch.float32 else 0)
        torch.testing.assert_close(dx, theirs, atol=5e-5, rtol=torch.finfo(dtype).eps if bool(far.any()) else 1e-5)


def liger_case(rows: int, vocab: int, dtype: torch.dtype, device: str, kernel: str, **options: object) -> None:
    """test/transformers/test_cross_entropy.py of Liger-Kernel: atol 1e-8, rtol 1e-6 in fp32 and 5e-2 in bf16."""
    g = torch.Generator(device=device).manual_seed(0)
    x = torch.randn(rows, vocab, generator=g, device=device, dtype=dtype).requires_grad_()
    target = torch.randint(0, vocab, (rows,), generator=g, device=device)
    ignore_index = int(str(options.get("ignore_index", -100)))
    assigned = torch.randperm(rows, generator=g, device=device)[: rows // 2]
    target[assigned] = ignore_index
    reference = x.detach().clone().float().requires_grad_()
    got = as_functional(x, target, kernel=kernel, **options)  # type: ignore[arg-type]
    z = float(str(options.pop("lse_square_scale", 0.0)))
    want = F.cross_entropy(reference, target, **options)  # type: ignore[arg-type]
    if z:
        kept = target != ignore_index
        penalty = z * torch.logsumexp(reference, 1) ** 2 * kept
        scale = {"none": penalty, "sum": penalty.sum(), "mean": penalty.sum() / kept.sum()}
        want = want + scale[str(options.get("reduction", "mean"))]
    rtol = 1e-6 if dtype == torch.float32 else 5e-2
    # torch's own fp32 sum of 10^4 terms is not good to 1e-6 in every order; 1e-5 of the loss is what fp32 can promise
    torch.testing.assert_close(
        got.float(), want.float(), atol=1e-6 if dtype == torch.float32 else 1e-3, rtol=max(rtol, 2e-6)
    )
    upstream = torch.rand_like(got)
    (dx,) = torch.autograd.grad(got, x, upstream)
    (dx_want,) = torch.autograd.grad(want, reference, upstream)
    torch.testing.assert_close(
        dx.float(), dx_want, atol=1e-8 if dtype == torch.bfloat16 else 2e-7, rtol=max(rtol, 1e-5)
    )


def liger_linear_case(
    rows: int, width: int, vocab: int, dtype: torch.dtype, reduction: str, kernel: str, extras: bool
) -> None:
    """test/transformers/test_fused_linear_cross_entropy.py of Liger-Kernel: its inputs; ``extras``: bias and softcap.

    Tolerances are Liger's, but for bf16 "sum", where its rtol of 50 would let anything pass: there those of "mean".
    """
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=g, dtype=dtype)
    table = torch.rand(vocab, width, generator=g, dtype=dtype)
    target = torch.randint(0, vocab, (rows,), generator=g)
    target[torch.randperm(rows, generator=g)[: rows // 3]] = -100
    bias = torch.rand(vocab, generator=g, dtype=dtype)
    kept = target != -100
    weights = torch.ones(rows) / (kept.sum() if reduction == "mean" else 1)
    leaves, theirs = ([t.clone().requires_grad_() for t in (hidden, table, bias)[: 2 + extras]] for _ in range(2))
    options: dict[str, Any] = {"bias": leaves[2], "softcap": 30.0} if extras else {}
    options |= {"rows_per_chunk": 64, "kernel": kernel}
    out = linear_cross_entropy(*leaves[:2], target, weights, torch.zeros_like(target), 1, **options)
    logits = F.linear(*theirs).float()
    logits = 30 * torch.tanh(logits / 30) if extras else logits
    want = F.cross_entropy(logits, target, reduction=reduction)
    atol, rtol = (5e-3, 5e-2) if dtype == torch.bfloat16 else (1e-5, 5e-4)
    scale = float(kept.sum()) if reduction == "sum" else 1.0
    torch.testing.assert_close(out.loss, want, atol=atol * scale, rtol=rtol)
    out.loss.backward()
    want.backward()
    for a, b in zip(leaves, theirs, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, atol=atol * scale, rtol=rtol)
