#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Evaluate Hugging Face folders: base against trained on held-out data, or any number of them on the benchmarks.

    python tools/evaluate.py --config configs/eval/demo_por.yaml [key=value ...]
    python tools/evaluate.py --config configs/eval/benchmarks_por.yaml models.mine=work/runs/mine/hf [key=value ...]

Both write <role>/results.json; the first adds results.json, generations.jsonl and report.html, the second (``kind:
benchmarks`` in the YAML file) summary.json and cases.md. Every finished part is kept under <output_dir>/<role>, so a
stopped evaluation continues where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sdrrl_nemo.common.cli import config_parser, run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.compat.check import start_check
from sdrrl_nemo.eval.config import KIND, BenchmarkConfig, EvalConfig, kind_of


def main(argv: Sequence[str]) -> int:
    """Parse, load the configuration, evaluate, write what a reader wants."""
    args = config_parser(__doc__.splitlines()[0]).parse_args(argv)
    start_check("evaluate")
    if kind_of(args.config) == KIND:
        from sdrrl_nemo.eval.several_models import evaluate_models

        print(evaluate_models(load_config(BenchmarkConfig, args.config, args.overrides)))
        return 0
    config = load_config(EvalConfig, args.config, args.overrides)
    from sdrrl_nemo.eval.base_and_trained import evaluate
    from sdrrl_nemo.report.build import write_report
    from sdrrl_nemo.report.console import summary

    results = evaluate(config)
    path = write_report(config.output_dir, config.run_dir, config.data_dir)
    print(summary(results))
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
