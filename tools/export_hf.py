#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Turn a training run's newest checkpoint into a Hugging Face folder and check its logits against Megatron's.

tools/export_hf.py --run work/runs/demo_por --output work/runs/demo_por/hf
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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
    parser.add_argument("--checkpoint", type=Path, help="one checkpoint directory (default: the run's newest)")
    parser.add_argument("--base", type=Path, help="HF folder the weights came from (default: the run's)")
    parser.add_argument("--weights", choices=("auto", "model", "master"), default="auto")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    start_check("export")

    from sdrrl_nemo.compat.start import prepare

    prepare()
    from sdrrl_nemo.model.export import export_checkpoint
    from sdrrl_nemo.report.model_card import model_card
    from sdrrl_nemo.train.callbacks.checkpoint import complete_checkpoints

    if args.run is not None:
        config = load_config(RunConfig, args.run / "config.yaml")
        done = complete_checkpoints(args.run / "checkpoints")
        if not done and args.checkpoint is None:
            raise SdrrlError(f"{args.run}/checkpoints: no finished checkpoint; train first")
        args.checkpoint = args.checkpoint or done[-1][1]
        args.base = args.base or Path(config.model.hf_path)
    if args.checkpoint is None or args.base is None:
        raise SdrrlError("give --run, or both --checkpoint and --base")
    result = export_checkpoint(
        args.checkpoint,
        args.base,
        args.output,
        weights=args.weights,
        dtype=args.dtype,
        card=model_card,
    )
    verb = "already holds the export of" if result.already_there else "exported"
    print(f"{args.output}: {verb} {args.checkpoint}")
    print(f"max abs diff of logits, transformers vs Megatron: {result.max_abs_diff:.3e} over {result.tokens} tokens")


if __name__ == "__main__":
    sys.exit(run(main))
