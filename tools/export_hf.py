#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Turn a checkpoint of a training run into a Hugging Face folder and check its logits against Megatron's, on CPU.

Of a run with held-out data that is the best checkpoint, else the newest. Again with ``--evaluation``, once the folder
has been evaluated, writes the figures into its model card and leaves the rest as it is.

tools/export_hf.py --run work/runs/demo_por --output work/runs/demo_por/hf
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.check import start_check
from sdrrl_nemo.train.config import RunConfig


def main(argv: Sequence[str]) -> None:
    """Find base model and checkpoint (from the run, or named), export, print the largest difference of a logit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run directory with config.yaml and checkpoints/")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--checkpoint", type=Path, help="one checkpoint directory")
    which.add_argument("--step", type=int, help="the run's checkpoint of this step")
    which.add_argument("--latest", action="store_true", help="the run's newest checkpoint, whichever is the best")
    parser.add_argument("--base", type=Path, help="HF folder the weights came from (default: the run's)")
    parser.add_argument("--weights", choices=("auto", "model", "master"), default="auto")
    parser.add_argument(
        "--dtype",
        choices=("base", "float32", "bfloat16", "float16", "fp32", "bf16"),
        default="base",
        help="type of the weights written (default: each tensor's own in the base folder)",
    )
    parser.add_argument("--evaluation", type=Path, help="folder of sdrrl evaluate: its figures go into the model card")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    start_check("export")

    from sdrrl_nemo.compat.start import prepare

    prepare(gpus=False)
    from sdrrl_nemo.data.text.chat_files import carry
    from sdrrl_nemo.model.export import export_checkpoint
    from sdrrl_nemo.report.model_card import model_card
    from sdrrl_nemo.train.run_dir import checkpoint_to_export

    if args.run is not None:
        config = load_config(RunConfig, args.run / "config.yaml")
        args.checkpoint = args.checkpoint or checkpoint_to_export(args.run, args.step, args.latest)
        args.base = args.base or Path(config.model.hf_path)
    if args.checkpoint is None or args.base is None:
        raise SdrrlError("give --run, or both --checkpoint and --base")
    if args.run is None and (args.step is not None or args.latest):
        raise SdrrlError("--step and --latest choose among the checkpoints of --run")
    result = export_checkpoint(
        args.checkpoint,
        args.base,
        args.output,
        weights=args.weights,
        dtype=args.dtype,
        card=partial(model_card, evaluation=args.evaluation),
        carry=carry,
    )
    for note in result.notes:
        print(note)
    verb = "already holds the export of" if result.already_there else "exported"
    print(f"{args.output}: {verb} {args.checkpoint}")
    print(f"max abs diff of logits, transformers vs Megatron: {result.max_abs_diff:.3e} over {result.tokens} tokens")


if __name__ == "__main__":
    sys.exit(run(main))
