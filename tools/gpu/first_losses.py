"""Losses of a run's first steps as a CPU computes them in fp32: made once, committed; GPUs are compared with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json_object, write_json
from sdrrl_nemo.common.provenance import REPO_ROOT, versions
from tools.gpu.made_up import fingerprint, inputs
from tools.gpu.shapes import Shape

FILE = REPO_ROOT / "tests" / "data" / "gpu_first_losses.json"
BOUNDS = {"fp32": 1e-4, "bf16": 2.0**-7}
"""Largest relative difference of a loss from the CPU's in fp32.

fp32: sums in another order are off by 1e-6 or so; Adam's first steps are learning rate times sign, which turns such
differences around for gradients near 0. bf16: a logit is rounded to 8 bits, a relative 2^-9, and so are the states
before it; over the tokens of a step that averages out to 1e-5 in the first loss, and the turned signs of the steps
after it were seen to reach 0.3% on a CPU. A wrong mask, position, weight or scale changes the first loss by more.
"""
NORM_BOUNDS = {"fp32": 1e-3, "bf16": 2.0**-5}
"""The same of the gradient norm, which sees every rounding of the backward pass."""


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
    """Largest relative differences, their bounds, and a sentence where one is beyond its bound (else empty)."""
    loss, norm = _largest(ran["losses"], row["losses"]), _largest(ran["grad_norms"], row["grad_norms"][:1])
    out = {"loss_error": loss, "loss_bound": BOUNDS[precision], "first_grad_norm_error": norm, "sentence": ""}
    if not loss <= BOUNDS[precision]:
        out["sentence"] = f"a loss is {loss:.2%} off the CPU's in fp32, more than {BOUNDS[precision]:.2%}"
    elif not norm <= NORM_BOUNDS[precision]:
        out["sentence"] = f"the first gradient norm is {norm:.2%} off the CPU's, more than {NORM_BOUNDS[precision]:.2%}"
    return out


def _largest(found: Sequence[float | None], wanted: Sequence[float]) -> float:
    """Of the first steps; a value that is not finite (None in metrics.jsonl) is infinitely far."""
    pairs = list(zip(found, wanted, strict=False))
    if not pairs:
        return float("inf")
    return max(abs(a - b) / abs(b) if a is not None else float("inf") for a, b in pairs)
