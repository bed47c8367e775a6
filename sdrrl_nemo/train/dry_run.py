"""What a run would do: checks everything that the recipe checks, writes nothing, needs no other process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sdrrl_kernels.fused_linear_cross_entropy import chunk_rows
from sdrrl_nemo.common.cli import is_rank_zero
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.ranks import world_size
from sdrrl_nemo.cost.flops import ModelShape, padded_vocabulary, six_nd, training_flops
from sdrrl_nemo.train.blend.record import lines as blend_lines
from sdrrl_nemo.train.config import RunConfig, check
from sdrrl_nemo.train.megatron_options.option_settings import notes, option_words
from sdrrl_nemo.train.preparation import Inputs, layers_in_words, layers_of, read_inputs
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
    named = f"{config.data.path}/{config.data.name}" if config.data.path else f"{len(config.data.blend)} entries"
    yield "layers", layers_line(config, run)
    yield "data", f"{named}: {len(data.lengths):,} samples in {len(data):,} packs"
    if batches.mixture and batches.mixture.record:
        yield from blend_lines(batches.mixture.record)
    weights = batches.mixture.objective.tolist() if batches.mixture else [1.0] * len(data.subset_names)
    for name, objective in zip(data.subset_names, weights, strict=True):
        facts = data.manifest["subsets"][name]
        weight = f"weight {objective:g}/{facts.get('weights', facts['samples']):g}" if facts["samples"] else "empty"
        yield f"  {name}", f"{facts['samples']:,} samples, {facts['answer_tokens']:,} answer tokens, {weight}"
    if run.held_out is not None:
        held = run.held_out.dataset
        where = f"{config.data.path}/{config.data.validation}" if config.data.path else config.data.validation
        yield "held out", f"{where}: {len(held.lengths):,} samples, every {config.validation.every} steps"
    sp = ", sequence parallel" if t.sequence_parallel else ""
    yield "processes", f"{world} = TP {t.tp} x PP {t.pp} x CP {t.cp} x DP {dp} (VPP {t.vpp}{sp})"
    yield "options", option_words(config.megatron)
    yield from (("note", note) for note in notes(config.megatron))
    rows, tokens = batches.row_shape
    accumulation = t.global_batch_size // (t.micro_batch_size * dp)
    yield "micro-batch", f"{rows} row of {tokens:,} tokens" if rows == 1 else f"{rows} rows of {tokens:,} tokens"
    yield "global batch", f"{t.global_batch_size} rows = {t.micro_batch_size} x DP {dp} x {accumulation} accumulated"
    ahead = f"{config.data.prefetch} micro-batches made ahead" if config.data.prefetch else "nothing made ahead"
    yield "loader", ahead
    yield "steps", f"{run.steps:,} ({per_epoch:,} an epoch, {run.steps / per_epoch:.2f} epochs)"
    last = learning_rate(optim, run.steps - 1, run.steps)
    yield (
        "learning rate",
        f"{optim.lr:.3g}, warm-up {optim.warmup_steps} steps, {optim.schedule}, last {last:.3g}",
    )
    yield "gradients", f"clipped at norm {optim.clip_grad:g}" if optim.clip_grad else "never clipped"
    lengths = np.asarray(data.lengths)
    useful, answers = batches.a_step(lengths), batches.a_step(np.asarray(data.answer_tokens))
    # in proportion to the tokens: the lengths of what is drawn more often are taken for those of all
    flops = training_flops(shape, lengths, projected=answers * int(lengths.sum()) / useful)
    flops *= useful / int(lengths.sum())
    yield "tokens a step", f"{useful:,.0f} questions and answers, mean over the epoch"
    share = answers / (t.global_batch_size * rows * tokens / t.micro_batch_size)
    yield "rows with loss", f"{100 * share:.0f}% of all rows; only they are projected onto the vocabulary"
    if config.loss.kernel == "fused_linear":
        yield "logits at a time", _chunks(config, shape, rows * tokens // t.cp)
    yield "operations a step", f"{flops:.3e} (6ND: {six_nd(shape, useful):.3e})"
    often = (
        "never" if t.save_every < 0 else f"every {t.save_every or run.steps} steps, newest {t.keep_checkpoints} kept"
    )
    yield "checkpoints", f"{config.run_dir}/checkpoints, {often}"


def _chunks(config: RunConfig, shape: ModelShape, rows: int) -> str:
    """Most logits that the fused loss makes at once, of a micro-batch with ``rows`` rows."""
    t = config.trainer
    columns, width = padded_vocabulary(shape.vocabulary, t.tp) // t.tp, 4 if t.precision == "fp32" else 2
    sizes = []
    for device, name in (("cuda", "a GPU"), ("cpu", "a CPU")):
        at_a_time = chunk_rows(rows, columns, width, device, config.loss.chunk_mib)
        sizes.append(f"{at_a_time * columns * width / 2**20:,.1f} MiB on {name}")
    return f"at most {', '.join(sizes)}"


def layers_line(config: RunConfig, run: Inputs) -> str:
    """Kind of layers and attention as this machine would take them; a dry run may be elsewhere than the run."""
    try:
        return f"{layers_in_words(*layers_of(config, run.hf))}, as this machine has them"
    except SdrrlError as e:
        return f"not as this machine has them: {e}"
