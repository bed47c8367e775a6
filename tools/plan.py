#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Plan a training run: memory of each GPU by part, tokens a second, hours, the best parallel layout. Needs no GPU.

    tools/plan.py --config configs/llama2_7b_a800x8.yaml --gpus 8 --gpu a800-80g

The model's sizes come from config.json in model.hf_path, from --hf-config (a folder, a config.json or a known name), or
from the folder's name where nothing is downloaded yet; the amount of data from the packed set, or from --tokens or
--samples with --sample-length, and --seq-length. ``--options`` prints what each of Megatron's options for memory and
speed would do, ``--published`` what is predicted for published Megatron runs. All numbers are predictions
(docs/planning.md says from what).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.cost.gpus import GPUS, gpu
from sdrrl_nemo.plan import report
from sdrrl_nemo.plan.option_table import option_lines
from sdrrl_nemo.plan.published import published_runs
from sdrrl_nemo.plan.search import Planner
from sdrrl_nemo.plan.workload import workload
from sdrrl_nemo.train.config import RunConfig


def parser() -> argparse.ArgumentParser:
    """Options."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--config", help="YAML file of the run, see configs/")
    p.add_argument("--gpus", type=int, default=8, help="GPUs of all nodes, eight a node (default 8)")
    p.add_argument("--gpu", default="a800-80g", help=", ".join(g.name for g in GPUS))
    p.add_argument("--hf-config", default="", help="folder, config.json or known name, in place of model.hf_path")
    p.add_argument("--tokens", type=int, default=0, help="question and answer tokens of an epoch")
    p.add_argument("--samples", type=int, default=0, help="samples of an epoch")
    p.add_argument("--sample-length", type=int, default=0, help="mean tokens of a sample")
    p.add_argument("--seq-length", type=int, default=0, help="tokens of a row")
    p.add_argument("--layers", choices=("te", "local"), default="te", help="Transformer Engine's (default) or local")
    p.add_argument("--network-gb-s", type=float, default=0.0, help="network of a GPU, 1e9 bytes/s, one direction")
    p.add_argument("--top", type=int, default=8, help="layouts in the table (default 8)")
    p.add_argument("--json", type=Path, help="write everything here too")
    p.add_argument("--options", action="store_true", help="what each of Megatron's options would do in this layout")
    p.add_argument("--published", action="store_true", help="compare with published Megatron runs and end")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="override any key of the YAML")
    return p


def main(argv: Sequence[str]) -> None:
    """Sizes, data and GPUs -> every layout predicted -> the configured one beside the best ones."""
    args = parser().parse_intermixed_args(argv)
    if args.published:
        published(args.json)
        return
    if not args.config:
        raise SdrrlError("--config is missing: the YAML file of the run, see configs/")
    if args.gpus < 1 or args.top < 1 or args.network_gb_s < 0:
        raise SdrrlError("--gpus and --top must be at least 1 and --network-gb-s not negative")
    card = gpu(args.gpu)
    if args.network_gb_s:
        card = replace(card, network_gb_s=args.network_gb_s)
    config = load_config(RunConfig, args.config, args.overrides)

    from sdrrl_nemo.plan.models import hf_config  # transformers: not for --help

    hf, source = hf_config(config.model.hf_path, args.hf_config)
    data = workload(config, args.tokens, args.samples, args.sample_length, args.seq_length)
    planner = Planner(config, ModelShape.of(hf), card, data, fused=args.layers == "te")
    if args.options:
        print("\n".join(option_lines(planner, args.gpus)))
        return
    result = planner.result(args.gpus)
    print("\n".join(report.lines(planner, result, source, args.top)))
    if args.json:
        write_json(args.json, report.as_json(planner, result, source, args.top))


def published(path: Path | None) -> None:
    """Print what the planner says of published runs."""
    runs = published_runs()
    print("\n".join(report.table(report.published_rows(runs))))
    for title, of in (("chosen on", True), ("held out", False)):
        mean, largest = report.spread([r for r in runs if r.chosen_on == of])
        print(f"{title}: mean error {100 * mean:.1f}%, largest {100 * largest:.1f}%")
    if path:
        write_json(path, {"runs": report.published_json(runs)})


if __name__ == "__main__":
    sys.exit(run(main))
