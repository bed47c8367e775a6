"""What a run would do: checks everything that the recipe checks, writes nothing, needs no other process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sdrrl_nemo.common.cli import is_rank_zero
from sdrrl_nemo.common.ranks import world_size
from sdrrl_nemo.cost.flops import ModelShape, six_nd, training_flops
from sdrrl_nemo.train.config import RunConfig, check
from sdrrl_nemo.train.preparation import Inputs, read_inputs
from sdrrl_nemo.train.schedule import learning_rate, resolve


def dry_run(config: RunConfig, processes: int = 0) -> None:
    """Print the plan on ``processes`` processes (0: those torchrun started); SdrrlError where the run would stop."""
    world = processes or world_size()
    run = read_inputs(config, world)
    if is_rank_zero():
        for name, value in lines(config, run, world):
            print(f"{name:<22} {value}")


def lines(config: RunConfig, run: Inputs, world: int) -> Iterator[tuple[str, str]]:
    """(what, value) in reading order."""
    t, data, batches = config.trainer, run.batches.dataset, run.batches
    dp = check(config, world)
    shape = ModelShape.of(run.hf)
    per_epoch = batches.schedule.steps_per_epoch
    optim = resolve(config.optim, batches, run.steps)
    yield "model", f"{config.model.hf_path} ({run.hf.model_type}, {shape.parameters():,} parameters)"
    yield "data", f"{config.data.path}/{config.data.name}: {len(data.lengths):,} samples in {len(data):,} packs"
    for name, facts in data.manifest["subsets"].items():
        weight = f"weight 1/{facts['samples']}" if facts["samples"] else "empty"
        yield f"  {name}", f"{facts['samples']:,} samples, {facts['answer_tokens']:,} answer tokens, {weight}"
    if run.held_out is not None:
        held = run.held_out.dataset
        yield (
            "held out",
            f"{config.data.path}/{held.name}: {len(held.lengths):,} samples, every {config.validation.every} steps",
        )
    sp = ", sequence parallel" if t.sequence_parallel else ""
    yield "processes", f"{world} = TP {t.tp} x PP {t.pp} x CP {t.cp} x DP {dp} (VPP {t.vpp}{sp})"
    rows, tokens = batches.row_shape
    accumulation = t.global_batch_size // (t.micro_batch_size * dp)
    yield "micro-batch", f"{rows} row of {tokens:,} tokens" if rows == 1 else f"{rows} rows of {tokens:,} tokens"
    yield "global batch", f"{t.global_batch_size} rows = {t.micro_batch_size} x DP {dp} x {accumulation} accumulated"
    yield "steps", f"{run.steps:,} ({per_epoch:,} an epoch, {run.steps / per_epoch:.2f} epochs)"
    last = learning_rate(optim, run.steps - 1, run.steps)
    yield (
        "learning rate",
        f"{optim.lr:.3g}, warm-up {optim.warmup_steps} steps, {optim.schedule}, last {last:.3g}",
    )
    yield "gradients", f"clipped at norm {optim.clip_grad:g}" if optim.clip_grad else "never clipped"
    useful = int(data.lengths.sum())
    answers = int(data.answer_tokens.sum())
    flops = training_flops(shape, np.asarray(data.lengths), projected=answers) / per_epoch
    yield "tokens a step", f"{useful / per_epoch:,.0f} questions and answers, mean over the epoch"
    share = answers / (per_epoch * t.global_batch_size * (tokens // t.micro_batch_size if rows == 1 else tokens))
    yield "rows with loss", f"{100 * share:.0f}% of all rows; only they are projected onto the vocabulary"
    yield "operations a step", f"{flops:.3e} (6ND: {six_nd(shape, useful / per_epoch):.3e})"
    often = (
        "never" if t.save_every < 0 else f"every {t.save_every or run.steps} steps, newest {t.keep_checkpoints} kept"
    )
    yield "checkpoints", f"{config.run_dir}/checkpoints, {often}"
