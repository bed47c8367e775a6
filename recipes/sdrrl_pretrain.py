#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../tools/python" "$0" "$@"'
"""Train a model on a packed SDRRL transfer set (Eq. 6).

    torchrun --nproc-per-node 2 recipes/sdrrl_pretrain.py --config configs/demo_por.yaml trainer.tp=2

Run the same command again after an interruption: it continues from the last checkpoint. ``--dry-run`` checks settings,
model and data and prints what would run, without torchrun: ``--gpus`` says on how many processes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sdrrl_nemo.common.cli import config_parser, run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.compat.check import start_check
from sdrrl_nemo.train.config import RunConfig


def main(argv: Sequence[str]) -> None:
    """Configuration -> data and weights of Eq. 6 -> Megatron model from HF -> NeMo trainer -> checkpoints."""
    parser = config_parser(__doc__ or "")
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the plan, train nothing")
    parser.add_argument(
        "--gpus", type=int, default=0, help="with --dry-run: processes (default: those torchrun started)"
    )
    args = parser.parse_intermixed_args(argv)
    config = load_config(RunConfig, args.config, args.overrides)
    start_check("train")

    from sdrrl_nemo.compat.start import prepare

    prepare()  # before anything of Megatron or NeMo is imported
    if args.dry_run:
        from sdrrl_nemo.train.dry_run import dry_run

        dry_run(config, args.gpus)
        return
    from sdrrl_nemo.train.fit import fit

    fit(config)


if __name__ == "__main__":
    sys.exit(run(main))
