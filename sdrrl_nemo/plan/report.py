"""What the planner prints, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from sdrrl_nemo.plan.layout import Layout
from sdrrl_nemo.plan.memory import Memory
from sdrrl_nemo.plan.published import PublishedRun
from sdrrl_nemo.plan.search import Plan, Planner, Result
from sdrrl_nemo.plan.speed import Step
from sdrrl_nemo.train.megatron_options.option_settings import option_words

GB = 1e9
STATED = "predicted from published runs and formulas, not measured on a GPU (docs/planning.md)"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table, columns right-aligned but for the first; the first row is its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()


def name_of(plan: Plan) -> str:
    """A layout in the words of its YAML keys."""
    found = plan.layout
    sp = " SP" if found.sequence_parallel else ""
    return f"TP {found.tp} PP {found.pp} VPP {found.vpp} CP {found.cp} DP {found.dp}{sp}"


def overrides(plan: Plan) -> str:
    """The same as overrides of the recipe's configuration."""
    p = plan.layout
    return (
        f"trainer.tp={p.tp} trainer.pp={p.pp} trainer.vpp={p.vpp} trainer.cp={p.cp} "
        f"trainer.sequence_parallel={str(p.sequence_parallel).lower()} trainer.micro_batch_size={p.micro_batch_size}"
    )


def memory_rows(columns: Sequence[tuple[str, Memory]]) -> list[list[str]]:
    """Table of memory by part, GB (1e9 bytes)."""
    rows = [["GB a GPU", *(title for title, _ in columns)]]
    for part in fields(Memory):
        rows.append([part.name, *(f"{getattr(m, part.name) / GB:.1f}" for _, m in columns)])
    return [*rows, ["total", *(f"{m.total / GB:.1f}" for _, m in columns)]]


def step_rows(columns: Sequence[tuple[str, Step]]) -> list[list[str]]:
    """Table of a step's time by part, milliseconds."""
    rows = [["ms a step", *(title for title, _ in columns)]]
    for part in fields(Step):
        rows.append([part.name.replace("_", " "), *(f"{1e3 * getattr(s, part.name):,.0f}" for _, s in columns)])
    return [*rows, ["total", *(f"{1e3 * s.total:,.0f}" for _, s in columns)]]


def _hours(plan: Plan) -> str:
    return "?" if not plan.hours else f"{plan.hours:.1f}" if plan.hours >= 1 else f"{plan.hours:.2g}"


def layout_rows(planner: Planner, plans: Sequence[Plan]) -> list[list[str]]:
    """Table of layouts, best first."""
    head = ["layout", "micro-batch", "largest", "GB a GPU", "tokens/s", "a GPU", "MFU", "hours"]
    rows = [head]
    for p in plans:
        rows.append(
            [
                name_of(p),
                str(p.layout.micro_batch_size),
                str(planner.largest_micro_batch(p.layout)),
                f"{p.memory.total / GB:.1f}",
                f"{p.tokens_per_second:,.0f}",
                f"{p.tokens_per_second / p.layout.gpus:,.0f}",
                f"{100 * p.mfu:.0f}%",
                _hours(p),
            ]
        )
    return rows


def lines(planner: Planner, result: Result, source: str, top: int) -> Iterator[str]:
    """The whole report. ``source``: where the model's sizes come from; ``top``: layouts in the table."""
    w, card, config, best = planner.workload, planner.gpu, planner.config, result.plans[0]
    yield f"model    {source}: {planner.shape.parameters():,} parameters"
    yield f"GPUs     {best.layout.gpus} x {card.name}, {card.memory_gb:.0f} GB, {card.bf16_tflops:.0f} TFLOP/s in bf16"
    yield f"data     rows of {w.row_tokens:,} tokens, samples of {w.sample_tokens:,.0f} on average ({w.source})"
    steps = w.steps(config)
    yield f"steps    {f'{steps:,}' if steps else '?'} of {config.trainer.global_batch_size} rows"
    yield f"options  {option_words(config.megatron)}"
    yield f"numbers  {STATED}"
    own = result.configured
    columns = [("as configured", own)] if own is not None and own.layout != best.layout else []
    columns.append(("best", best))
    yield ""
    yield from table(memory_rows([(title, p.memory) for title, p in columns]))
    yield ""
    yield from table(step_rows([(title, p.step) for title, p in columns]))
    yield ""
    yield from table(layout_rows(planner, result.plans[:top]))
    yield ""
    if own is None:
        yield f"configured: the recipe would refuse it on {best.layout.gpus} GPUs: {result.refused}"
    elif not own.fits:
        yield f"configured: does not fit, {own.memory.total / GB:.1f} of {card.memory_gb:.0f} GB ({name_of(own)})"
    else:
        hours = f", {_hours(own)} hours" if own.hours else ""
        share = own.tokens_per_second / best.tokens_per_second
        yield (
            f"configured: {name_of(own)}, micro-batch {own.layout.micro_batch_size}: {own.tokens_per_second:,.0f} "
            f"tokens/s{hours}, {100 * share:.0f}% of the best; largest micro-batch that fits: "
            f"{planner.largest_micro_batch(own.layout)}"
        )
    yield f"best:       {overrides(best)}"
    saved = planner.checkpoint_bytes((own or best).layout)
    yield (
        f"checkpoint: {saved / GB:,.3g} GB on disk; while it is written the nodes hold as much in host memory, "
        f"{saved / best.layout.gpus / GB:,.3g} GB a GPU, and none on the GPUs; reading it takes up to "
        f"{planner.loaded_bytes((own or best).layout) / GB:,.3g} GB more a GPU, before there are activations"
    )
    yield from _reads(planner, (own or best).layout)
    if (at_load := _at_load(planner, own or best)) > card.memory_gb * GB:
        yield (
            f"a resumed run needs up to {at_load / GB:,.1f} GB a GPU while it reads its checkpoint, more than the "
            f"{card.memory_gb:.0f} GB there are; split the model further (trainer.tp, trainer.pp)"
        )
    if not steps:
        yield "hours: give --tokens, or --samples with --sample-length, or make the packed set"


def _reads(planner: Planner, layout: Layout) -> Iterator[str]:
    """What a resumed run and a new one read."""
    read, host = planner.read_bytes(layout)
    yield (
        f"resume:     a GPU's process reads up to {read / GB:,.3g} GB of the checkpoint, {host / GB:,.2g} GB of host "
        "memory at a time"
    )
    read, host = planner.start_bytes(layout)
    yield (
        f"start:      a GPU's process reads up to {read / GB:,.3g} GB of the model's folder (in 16 bit), "
        f"{host / GB:,.2g} GB of host memory at a time, nothing more on the GPU"
    )


def _at_load(planner: Planner, plan: Plan) -> float:
    """Bytes of the fullest rank while a checkpoint is read: what stays, and what is read beside it."""
    m = plan.memory
    return m.parameters + m.gradients + m.optimizer + m.overhead + planner.loaded_bytes(plan.layout)


def as_json(planner: Planner, result: Result, source: str, top: int) -> dict[str, Any]:
    """The report's numbers, in bytes and seconds."""
    return {
        "note": STATED,
        "model": source,
        "parameters": planner.shape.parameters(),
        "gpu": asdict(planner.gpu),
        "data": asdict(planner.workload),
        "steps": planner.workload.steps(planner.config) or None,
        "configured": _plan_json(planner, result.configured) if result.configured else result.refused,
        "best": [_plan_json(planner, p) for p in result.plans[:top]],
    }


def _plan_json(planner: Planner, plan: Plan) -> dict[str, Any]:
    return {
        "layout": asdict(plan.layout),
        "overrides": overrides(plan),
        "fits": plan.fits,
        "fullest_stage": plan.stage,
        "largest_micro_batch_size": planner.largest_micro_batch(plan.layout),
        "memory_bytes": {**asdict(plan.memory), "total": plan.memory.total},
        "step_seconds": {**asdict(plan.step), "total": plan.step.total},
        "checkpoint_bytes": planner.checkpoint_bytes(plan.layout),
        "loaded_bytes": planner.loaded_bytes(plan.layout),
        "read_bytes": dict(zip(("disk", "host"), planner.read_bytes(plan.layout), strict=True)),
        "start_bytes": dict(zip(("disk", "host"), planner.start_bytes(plan.layout), strict=True)),
        "tokens_per_second": plan.tokens_per_second,
        "hours": plan.hours or None,
        "mfu": plan.mfu,
    }


def published_json(runs: Sequence[PublishedRun]) -> list[dict[str, Any]]:
    """Published and predicted seconds of a step."""
    return [
        {
            "name": r.name,
            "source": r.source,
            "gpu": r.gpu,
            "gpus": r.layout.gpus,
            "published_seconds": r.seconds,
            "predicted_seconds": r.predict().total,
            "predicted_memory_bytes": None if r.build.eager else r.memory().total,
            "chosen_on": r.chosen_on,
        }
        for r in runs
    ]


def published_rows(runs: Sequence[PublishedRun]) -> list[list[str]]:
    """Table of published runs: seconds of a step as published and as predicted."""
    rows = [["run", "GPUs", "published s", "predicted s", "error", "GB a GPU", "use"]]
    for r in runs:
        seconds = r.predict().total
        rows.append(
            [
                f"{r.name} ({r.gpu})",
                str(r.layout.gpus),
                f"{r.seconds:.2f}",
                f"{seconds:.2f}",
                f"{100 * (seconds / r.seconds - 1):+.1f}%",
                "-" if r.build.eager else f"{r.memory().total / GB:.1f}",  # attention scores are not modelled
                "chosen on" if r.chosen_on else "held out",
            ]
        )
    return rows


def spread(runs: Sequence[PublishedRun]) -> tuple[float, float]:
    """(mean, largest) absolute relative error of the predicted seconds."""
    errors = [abs(r.predict().total / r.seconds - 1) for r in runs]
    return math.fsum(errors) / len(errors), max(errors)
