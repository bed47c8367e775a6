#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../tools/python" "$0" "$@"'
"""Train a model on a packed SDRRL transfer set (Eq. 6).

    torchrun --nproc-per-node 2 recipes/sdrrl_pretrain.py --config configs/demo_por.yaml trainer.tp=2

Run the same command again after an interruption: it continues from the last checkpoint. ``--dry-run`` checks settings,
model and data and prints what would run, without torchrun: ``--gpus`` says on how many processes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sdrrl_nemo.common.cli import config_parser, run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.compat.check import start_check
from sdrrl_nemo.train.config import RunConfig


def main(argv: Sequence[str]) -> None:
    """Read the configuration, then train, or say what training would do."""
    args = parse(argv)
    config = load_config(RunConfig, args.config, args.overrides)
    start_check("train")

    from sdrrl_nemo.compat.start import prepare

    # Patches to Megatron, NeMo and torch have to be there before anything of them is imported. That is also why the
    # imports of this project's training code stand inside functions here.
    prepare(gpus=config.trainer.accelerator != "cpu")
    if args.dry_run:
        from sdrrl_nemo.train.dry_run import dry_run

        dry_run(config, args.gpus)
    else:
        train(config)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """``--config FILE [key=value ...]``, ``--dry-run`` and ``--gpus``."""
    parser = config_parser(__doc__ or "")
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the plan, train nothing")
    parser.add_argument(
        "--gpus", type=int, default=0, help="with --dry-run: processes (default: those torchrun started)"
    )
    return parser.parse_intermixed_args(argv)


def train(config: RunConfig) -> None:
    """The method from top to bottom; every process that torchrun started runs all of it."""
    import torch

    from sdrrl_nemo.common import ranks
    from sdrrl_nemo.compat.deterministic import same_bits
    from sdrrl_nemo.train import run_dir
    from sdrrl_nemo.train.callbacks.lora_run import lora_of_run
    from sdrrl_nemo.train.faults import one_sentence
    from sdrrl_nemo.train.module import PackedDataModule, build_model
    from sdrrl_nemo.train.preparation import (
        Inputs,
        check_machine,
        check_settings,
        layers_of,
        model_sizes,
        total_steps,
        weighted_batches,
    )
    from sdrrl_nemo.train.trainer import adam, build_trainer, callbacks, megatron_strategy

    # 1. Prepare. Whatever can be wrong is found before anything is loaded or written: first settings, then the model's
    #    sizes. The same command on a finished run ends here.
    if config.trainer.num_threads:
        torch.set_num_threads(config.trainer.num_threads)
    check_settings(config, ranks.world_size())
    check_machine(config)
    if config.trainer.deterministic:
        same_bits()
    hf = model_sizes(config)
    layers_of(config, hf)

    # 2. Data and the weights of Eq. 6. The loss of the paper is, over the six subsets d, the sum of the means over d's
    #    samples of the mean over a sample's answer tokens:
    #
    #        L = sum_d  1/|D_d|  sum_{(x, y) in D_d}  1/|y|  sum_j  -log p(y_j | x, y_<j)
    #
    #    A step sees a few samples only, so the two means cannot be taken there. Instead every answer token carries the
    #    constant weight w = S / (|D_d| |y|), S being the steps of an epoch, and the loss of a step is the plain sum of
    #    w times cross-entropy. Over an epoch the step losses then average to L, whatever the batches and the layout.
    batches, held_out = weighted_batches(config, hf.vocab_size)
    inputs = Inputs.fitting(config, hf, batches, held_out, total_steps(config, batches))

    # 3. The run's folder: refused where it holds another run. The processes join before they look for the newest whole
    #    checkpoint: rank 0 says which one it is, since machines may see a shared folder differently for some seconds,
    #    and they check its files together.
    ranks.join()
    run_dir.claim(config, inputs.batches, inputs.steps)
    if run_dir.is_finished(config):
        return
    first_step, checkpoint = run_dir.where_to_continue(config)

    # 4. The model: Megatron's GPT with the weights of the Hugging Face folder, adapters if wanted, and the loss of
    #    step 2 in the place of its output layer's. Nothing after it divides: gradients are summed over tokens,
    #    micro-batches and ranks.
    adapters = lora_of_run(config, run_dir.identity_file(config))
    model = build_model(config, inputs, adapters, optimizer=adam(config, inputs), checkpoint=checkpoint)

    # 5. The trainer: micro-batches made ahead of the steps, Megatron's tensor, pipeline, context and data parallelism,
    #    and what happens beside the steps.
    data = PackedDataModule(inputs.batches, config.trainer.global_batch_size, config.data.prefetch)
    beside = callbacks(config, inputs, adapters, data.waiting)
    strategy = megatron_strategy(config, inputs, first_step)
    trainer = build_trainer(config, inputs, strategy, beside)

    # 6. Fit. A full disk or a lost process becomes one sentence.
    with one_sentence(config.run_dir):
        trainer.fit(model, datamodule=data, ckpt_path=str(checkpoint) if checkpoint else None)

    # 7. Finish: a run that ended by itself is marked, so that the same command does nothing more.
    run_dir.finish(config, trainer.global_step, beside.held_out, interrupted=beside.checkpoints.terminated)


if __name__ == "__main__":
    sys.exit(run(main))
