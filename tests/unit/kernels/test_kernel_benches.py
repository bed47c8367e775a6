"""The benchmarks of the loss measure what they say: errors against autograd in float64, goals, reasons."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sdrrl_nemo.common.errors import SdrrlError
from tools.bench import kernel_table, loss_kernels
from tools.bench.kernels import bench_kernels, installed_peers
from tools.bench.kernels.installed_peers import Peer
from tools.bench.kernels.loss_cases import Case, gradient_error
from tools.bench.kernels.torch_formulas import HAS_NATIVE, IMPLEMENTATIONS, NATIVE

QUICK = ("ours", *((NATIVE,) if HAS_NATIVE else ()), "torch eager", "Liger math")
SHAPE = loss_kernels.Shape("linear", "bf16", 640, 48, 0.4)


@pytest.fixture(autouse=True)
def same_threads() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_error_is_the_distance_to_float64_autograd(weighted: bool, tmp_path: Path) -> None:
    case = Case("cpu", "fp32", 48, 640, 16, "linear", live=0.4)
    hidden, weight = (t.detach().double().requires_grad_() for t in (case.hidden, case.weight))
    losses = torch.nn.functional.cross_entropy(hidden @ weight.t(), case.labels, reduction="none")
    (losses * (case.weights.double() if weighted else (case.labels >= 0).double())).sum().backward()
    assert weight.grad is not None and 0 < int((case.labels < 0).sum()) < 48
    case.weight.grad = weight.grad.float()
    assert gradient_error(case, weighted, tmp_path / "kept.pt") < 1e-6
    case.weight.grad = 1.01 * weight.grad.float()
    assert gradient_error(case, weighted, tmp_path / "kept.pt") == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("name", QUICK)
def test_every_peer_computes_the_loss_of_the_live_rows(name: str, tmp_path: Path) -> None:
    args = loss_kernels.parser().parse_args(["--device", "cpu", "--threads", "1", "--seconds", "0", "--width", "16"])
    args.references = tmp_path
    row = loss_kernels.measure(SHAPE, name, args)
    case = Case("cpu", "bf16", 48, 640, 16, "linear", live=0.4)
    losses = torch.nn.functional.cross_entropy((case.hidden @ case.weight.t()).double(), case.labels, reduction="none")
    wanted = losses.sum() if name == NATIVE else (losses * case.weights).sum()
    assert row["loss"] == pytest.approx(wanted.item(), rel=1e-2) and row["dw_error"] < 2e-2
    assert name in IMPLEMENTATIONS["linear"]


def _row(name: str, flow: str = "linear", **more: Any) -> dict[str, Any]:
    shape = {"flow": flow, "dtype": "bf16", "vocab": 640, "n": 48, "live": 1.0, "implementation": name}
    return {**shape, "ms": 10.0, "peak_mib": 10.0, **more}


def test_a_missed_goal_is_bold_and_has_its_reason() -> None:
    rows = [
        *(_row("ours", ms=6.0, peak_mib=4.0, dw_error=2e-3), _row("torch native", dw_error=4e-3)),
        *(_row("Liger math", ms=5.0, dw_error=4e-3), _row("torch eager", error="no memory")),
        *(_row("ours", "logits", ms=9.0), _row("torch eager", "logits"), _row("torch.compile", "logits", ms=9.5)),
    ]
    del rows[3]["ms"]
    found = list(kernel_table.shapes(rows))
    linear, logits = found
    assert (linear["held_against"], linear["fastest_peer"], logits["held_against"]) == (
        "torch native",
        "Liger math",
        "torch.compile",
    )
    assert linear["failed"] == {"torch eager": "no memory"}
    assert list(kernel_table.misses(found)) == [
        "linear bf16 V=640 N=48 live=1: time ratio 0.60, goal 0.5",
        "linear bf16 V=640 N=48 live=1: error ratio 0.50, goal 0.1 "
        "(ours is 2.0e-03: the result's one rounding to bf16)",
        "logits bf16 V=640 N=48 live=1: memory ratio 1.00, goal 0.5",
    ]
    text = kernel_table.table(found)
    assert text.count("**") == 6 and "**0.60**" in text and "| 0.40 |" in text


def _broken(case: Case) -> torch.Tensor:
    raise RuntimeError("an illegal access")


def test_the_gpu_bench_names_what_is_absent_fails_or_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = {
        "none": Peer("no-such-package", lambda: _broken),
        "unusable": Peer("torch", lambda: importlib.import_module("torch.no_such_part")),
        "broken": Peer("torch", lambda: _broken),
    }
    for module in (bench_kernels, installed_peers):
        monkeypatch.setattr(module, "PEERS", {"logits": peers, "linear": {}})
    report = tmp_path / "report.json"
    assert bench_kernels.main(["--device", "cpu", "--small", "--output", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["absent"]["logits: none"] == "no-such-package is not installed"
    assert "No module named 'torch.no_such_part'" in found["absent"]["logits: unusable"]
    by_name = {(r["flow"], r["implementation"], r["pass"], r["tp"]): r for r in found["rows"]}
    assert by_name["logits", "broken", "forward", 1]["error"] == "RuntimeError: an illegal access"
    row = by_name["linear", "ours", "forward+backward", 4]
    assert row["tflops"] == pytest.approx(6 * 16 * 160 * 32 / (row["ms"] / 1e3) / 1e12)
    assert row["share_of_product"] == pytest.approx(row["tflops"] / found["ceilings"]["bf16_tflops"])
    assert {name for _, name, *_ in by_name} >= {"ours one pass", *QUICK[:-1]}
    assert (f"linear: {NATIVE}" in found["absent"]) is not HAS_NATIVE
    out = capsys.readouterr().out
    assert "absent: logits: none: no-such-package is not installed" in out and "an illegal access" in out
    assert found["skipped"] == []
    assert bench_kernels.main(["--device", "cpu", "--small", "--seconds", "0", "--output", str(report)]) == 0
    left = json.loads(report.read_text())
    assert left["rows"] == [] and "logits 16x640/1 ours forward+backward" in left["skipped"]


def test_the_whole_grid_is_in_the_gpu_bench_once() -> None:
    every = list(bench_kernels.sizes(small=False))
    assert len(set(every)) == len(every) == 2 * (5 * 3 + 2)
    assert {(s.n, s.vocab) for s in every} == {(n, v) for n in bench_kernels.TOKENS for v in bench_kernels.WIDTHS}


def test_the_gpu_bench_refuses_a_cpu_at_a_gpus_shapes() -> None:
    with pytest.raises(SdrrlError, match="add --small"):
        bench_kernels.main(["--device", "cpu"])
