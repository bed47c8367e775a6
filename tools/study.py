#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Train and measure every method of the paper's comparison from one base model on one budget; tables and a report.

    tools/study.py --config configs/study/smollm2_por.yaml [--until export] [key=value ...]
    tools/study.py --config configs/study/smollm2_por_gpu.yaml --device cuda
    tools/study.py --config configs/study/smollm2_por.yaml --dry-run

Every finished stage leaves a marker under work_dir/done: stopped at any moment, the same command continues. The results
and the page are written from what is measured so far; runs that are missing are named there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sdrrl_nemo.common.cli import config_parser, run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.study.config import DEVICES, StudyConfig, check
from sdrrl_nemo.study.plan import KINDS

# Set before torch is loaded: stages run side by side, and threads that wait for each other sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def main(argv: Sequence[str]) -> None:
    """Check, run what is left to do, write ``<output>.json`` and ``<output>.html``."""
    parser = config_parser(__doc__.splitlines()[0])
    parser.add_argument("--until", choices=KINDS, default=KINDS[-1], help="kind of the last stages to run")
    parser.add_argument("--stage", help="measure one finished run, 'measure/sdrrl-1', in this process; no report")
    parser.add_argument("--report", action="store_true", help="run nothing, write results and page of what is measured")
    parser.add_argument("--dry-run", action="store_true", help="run nothing; what is left, and about how long it takes")
    parser.add_argument("--device", choices=DEVICES, help="the same as device=...: one process on the GPU, or the CPU")
    parser.add_argument("--in-process", action="store_true", help="one process for all stages, as on a GPU")
    args = parser.parse_intermixed_args(argv)
    args.overrides += [f"device={args.device}"] if args.device else []
    config = load_config(StudyConfig, args.config, args.overrides)
    check(config)
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))

    if args.stage:
        from sdrrl_nemo.study.measure import measure_stage

        measure_stage(config, args.stage)
        return
    from sdrrl_nemo.study.run import forecast, run_stages, write_results

    kinds = KINDS[: KINDS.index(args.until) + 1]
    if args.dry_run:
        print(forecast(config, args.config, args.overrides, kinds))
        return
    if not args.report:
        try:
            run_stages(config, args.config, args.overrides, kinds, args.in_process)
        except SdrrlError:
            write_results(config, quiet=True)  # what is measured is worth reading while the failure is mended
            raise
    write_results(config)


if __name__ == "__main__":
    sys.exit(run(main))
