#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Start training on this machine, a Slurm cluster or rented machines, through NeMo-Run.

    tools/launch_nemo_run.py --config configs/clusters/nemo_run_slurm.yaml --dry-run nodes=2

``--dry-run`` checks the training configuration against the number of processes and prints what would be started.
The commit that is checked out is what a cluster gets; changes that are not committed stay here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sdrrl_nemo.common.cli import config_parser, run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.launch.config import LaunchConfig, check_launch


def main(argv: Sequence[str]) -> None:
    """Configuration -> NeMo-Run executor and script -> start, or print."""
    parser = config_parser(__doc__ or "")
    parser.add_argument("--dry-run", action="store_true", help="print what would be started, start nothing")
    args = parser.parse_intermixed_args(argv)
    if not Path("recipes/sdrrl_pretrain.py").is_file():
        raise SdrrlError("this starts what a checkout has committed: run it in the folder of a clone of the project")
    launch = load_config(LaunchConfig, args.config, args.overrides)
    check_launch(launch)

    from sdrrl_nemo.launch.nemo_run import dry_run, start

    if args.dry_run:
        print(dry_run(launch))
    else:
        start(launch)


if __name__ == "__main__":
    sys.exit(run(main))
