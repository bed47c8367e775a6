"""Compare a base model with a trained one on held-out data; write results.json, generations.jsonl and report.html.

    python tools/evaluate.py --config configs/eval/demo_por.yaml [key=value ...]

Every finished part is kept under <output_dir>/tasks, so a stopped evaluation continues where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sdrrl_nemo.common.cli import config_parser, run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.eval.config import EvalConfig


def main(argv: Sequence[str]) -> int:
    """Parse, load the configuration, evaluate, write the report."""
    args = config_parser(__doc__.splitlines()[0]).parse_args(argv)
    config = load_config(EvalConfig, args.config, args.overrides)
    from sdrrl_nemo.eval.runner import evaluate
    from sdrrl_nemo.report.build import write_report
    from sdrrl_nemo.report.console import summary

    results = evaluate(config)
    path = write_report(config.output_dir, config.run_dir, config.data_dir)
    print(summary(results))
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
