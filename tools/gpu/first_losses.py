"""Losses of a run's first steps as a CPU computes them in fp32: made once, committed; GPUs are compared with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json_object, write_json
from sdrrl_nemo.common.provenance import REPO_ROOT, versions
from tools.gpu.made_up import fingerprint, inputs
from tools.gpu.shapes import Shape

FILE = REPO_ROOT / "tests" / "data" / "gpu_first_losses.json"


@dataclass(frozen=True)
class Bounds:
    """Largest relative differences from the CPU's fp32: of the first loss, a later one, the first gradient norm."""

    first_loss: float
    loss: float
    first_grad_norm: float


BOUNDS = {"fp32": Bounds(1e-5, 1e-4, 1e-3), "bf16": Bounds(2.0**-10, 2.0**-7, 2.0**-5)}
"""fp32: sums in another order are off by 1e-6 or so. bf16: states and logits are rounded by a relative 2^-9, which
averages out over the tokens of a step; 2e-5 was seen on a CPU. Adam's first steps are learning rate times sign, and
rounding turns the signs of gradients near 0 around: later losses were seen to be off by 0.3% in bf16. With random
weights a wrong attention mask moves the first loss by 0.1% to 0.8% alone, but the first gradient norm by 14% to 46%,
which rounding moves by 0.1%: so the norm is what finds it.
"""


def make(shape: Shape, folder: Path) -> dict[str, Any]:
    """Run the plain loop on the CPU in fp32 and write its first losses into the file of all shapes."""
    from tools.gpu.plain_loop import Plan, loop

    model, data = inputs(shape, folder)
    ran = loop(Plan(shape.name, str(model), str(data), "cpu", "fp32", 1, shape.reference_steps))
    row = {
        **fingerprint(shape, folder),
        "losses": ran["losses"],
        "grad_norms": ran["grad_norms"],
        "global_batch_size": shape.global_batch_size,
        "made_with": {name: versions()[name] for name in ("python", "torch", "transformers", "numpy")},
    }
    known = read_json_object(FILE) if FILE.is_file() else {}
    write_json(FILE, {**known, shape.name: row})
    return row


def reference(shape: Shape, folder: Path) -> dict[str, Any]:
    """The shape's row; SdrrlError where there is none, or one of other weights, rows or batches."""
    row = read_json_object(FILE).get(shape.name)
    command = f"tools/gpu_check.py --make-reference {shape.name}"
    if row is None:
        raise SdrrlError(f"{FILE.name}: no losses of '{shape.name}'; make them: {command}")
    made = {**fingerprint(shape, folder), "global_batch_size": shape.global_batch_size}
    for key, value in made.items():
        if row[key] != value:
            raise SdrrlError(f"{FILE.name}: '{shape.name}' was made with other {key}; make it anew: {command}")
    return dict(row)


def compared(ran: dict[str, Any], row: dict[str, Any], precision: str) -> dict[str, Any]:
    """The largest relative differences, their bounds, and a sentence where one is beyond its bound (else empty)."""
    bounds = BOUNDS[precision]
    found = {
        "first loss": (_largest(ran["losses"], row["losses"][:1]), bounds.first_loss),
        "loss": (_largest(ran["losses"], row["losses"]), bounds.loss),
        "first gradient norm": (_largest(ran["grad_norms"], row["grad_norms"][:1]), bounds.first_grad_norm),
    }
    wrong = [
        f"{what} {error:.3%} off, bound {bound:.3%}" for what, (error, bound) in found.items() if not error <= bound
    ]
    out: dict[str, Any] = {}
    for what, (error, bound) in found.items():
        key = what.replace(" ", "_")
        out |= {f"{key}_error": error, f"{key}_bound": bound}
    return {**out, "sentence": f"not the CPU's in fp32: {'; '.join(wrong)}" if wrong else ""}


def _largest(found: Sequence[float | None], wanted: Sequence[float]) -> float:
    """Of the first steps; a value that is not finite (None in metrics.jsonl) is infinitely far."""
    pairs = list(zip(found, wanted, strict=False))
    if not pairs:
        return float("inf")
    return max(abs(a - b) / abs(b) if a is not None else float("inf") for a, b in pairs)
