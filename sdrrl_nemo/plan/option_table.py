"""What each of Megatron's options for memory and speed would do to a run: one row an option, all else as configured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sdrrl_nemo.common.config import override
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.plan import report
from sdrrl_nemo.plan.search import Plan, Planner

OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True}
OPTIONS: dict[str, dict[str, Any]] = {
    "as configured": {},
    "overlap_grad_reduce": {"overlap_grad_reduce": True},
    "and overlap_param_gather": OVERLAP,
    "gradient_accumulation_fusion": {"gradient_accumulation_fusion": True},
    "tp_comm_overlap": {"tp_comm_overlap": True},
    "recompute selective (mlp)": {"recompute_granularity": "selective", "recompute_modules": ["mlp"]},
    "recompute full (block 8)": {
        "recompute_granularity": "full",
        "recompute_method": "block",
        "recompute_num_layers": 8,
    },
    "recompute full (uniform 1)": {
        "recompute_granularity": "full",
        "recompute_method": "uniform",
        "recompute_num_layers": 1,
    },
    "fp8 hybrid (delayed)": {"fp8": "hybrid"},
}


def with_option(planner: Planner, changes: dict[str, Any]) -> Planner:
    """The same with other options of the section ``megatron``."""
    return replace(planner, config=override(planner.config, {"megatron": changes}, "megatron")) if changes else planner


def option_lines(planner: Planner, gpus: int) -> list[str]:
    """Table of the options in the configuration's own layout: memory and speed with its micro-batch, and with the
    largest that fits; of an option that is refused there, dashes, and the sentence below."""
    rows = [["option", "GB a GPU", "tokens/s", "largest micro-batch", "GB then", "tokens/s then"]]
    refused: list[str] = []
    for name, changes in OPTIONS.items():
        try:
            other = with_option(planner, changes)
            plan = other.predict(other.layout(gpus))
        except SdrrlError as e:
            refused.append(f"{name}: {e}")
            rows.append([name, *"-----"])
            continue
        rows.append([name, *_numbers(plan), *_at_largest(other, plan)])
    return [*report.table(rows), "", *refused]


def _numbers(plan: Plan) -> list[str]:
    return [f"{plan.memory.total / report.GB:.1f}", f"{plan.tokens_per_second:,.0f}"]


def _at_largest(planner: Planner, plan: Plan) -> list[str]:
    largest = planner.largest_micro_batch(plan.layout)
    if not largest:
        return ["0", "-", "-"]
    accumulation = planner.config.trainer.global_batch_size // (plan.layout.dp * largest)
    found = planner.predict(replace(plan.layout, micro_batch_size=largest, accumulation=accumulation))
    return [str(largest), *_numbers(found)]
