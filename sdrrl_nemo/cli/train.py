"""``sdrrl train``: the recipe under torchrun, with what torchrun has to be told taken from the machine and the YAML."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sdrrl_nemo.cli.loading import load
from sdrrl_nemo.common.cli import config_parser
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.provenance import IMPORT_PATHS, IS_CHECKOUT, script_path
from sdrrl_nemo.compat.check import start_check
from sdrrl_nemo.model.published.weight_files import check_weights
from sdrrl_nemo.train.config import RunConfig

HELP = """usage: sdrrl train --config FILE [key=value ...]
       sdrrl train --nnodes 2 --nproc-per-node 8 --rdzv-endpoint HOST:PORT ... --config FILE [key=value ...]
       sdrrl train --dry-run --config FILE [--gpus N] [key=value ...]

What stands before --config, or before --, goes to torchrun as it is. With nothing there training starts on this
machine: a process a GPU, or without a GPU as many as trainer.tp x pp x cp asks for. --dry-run checks settings, model
and data and prints what would run, without torchrun. torchrun takes this process's place: signals and exit codes are
its own.

The recipe:
"""

THREADS = 8
"""At most so many a process, where nobody says: more only help products that a GPU does."""


def train(argv: Sequence[str], script: str) -> int:
    """Start the recipe; returns only for ``--dry-run`` and ``--help``, which need no torchrun."""
    options, arguments = split(argv)
    if {"-h", "--help"} & {*options, *arguments}:
        print(HELP)
        arguments = ["--help"]
    if "--dry-run" in arguments or "--help" in arguments:
        result: int | None = load(script).main(arguments)
        return result or 0
    start_check("train", warn=False)  # the recipe warns
    # a wrong key, or a weight file that is absent, is said once and in one sentence, before any process starts
    config = _config(arguments)
    check_weights(Path(config.model.hf_path))
    options = options or this_machine(config)
    command = [sys.executable, "-P", "-m", "torch.distributed.run", *options, str(script_path(script)), *arguments]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment(os.environ, options))


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(torchrun's options, the recipe's arguments); ``--dry-run`` and ``--gpus`` are always the recipe's."""
    at = next((i for i, a in enumerate(argv) if a in ("--config", "--") or a.startswith("--config=")), len(argv))
    before, arguments = list(argv[:at]), list(argv[at:])
    if arguments[:1] == ["--"]:
        del arguments[0]
    if before and not before[0].startswith("-"):
        raise SdrrlError(f"'{before[0]}' stands before --config; write: sdrrl train --config FILE {before[0]}")
    options: list[str] = []
    while before:
        word = before.pop(0)
        if word == "--dry-run" or word.startswith("--gpus="):
            arguments.append(word)
        elif word == "--gpus" and before:
            arguments += [word, before.pop(0)]
        else:
            options.append(word)
    return options, arguments


def _config(arguments: Sequence[str]) -> RunConfig:
    args = config_parser("").parse_intermixed_args(arguments)
    return load_config(RunConfig, args.config, args.overrides)


def this_machine(config: RunConfig) -> list[str]:
    """torchrun's options for this machine alone: a process a GPU, or with none as many as the layout needs."""
    try:
        import torch
    except (ImportError, OSError) as e:  # OSError: a library that torch loads is absent
        raise SdrrlError(f"torch cannot be imported ({e}); sdrrl doctor says what is amiss") from None
    t = config.trainer
    processes = torch.cuda.device_count() or max(1, t.tp * t.pp * t.cp)
    return ["--standalone", "--nproc-per-node", str(processes)]


def environment(old: Mapping[str, str], options: Sequence[str]) -> dict[str, str]:
    """The environment torchrun gets: this checkout's code first, and threads that share the cores between processes."""
    new = dict(old)
    if IS_CHECKOUT:
        new["PYTHONPATH"] = os.pathsep.join([*IMPORT_PATHS, *filter(None, [old.get("PYTHONPATH")])])
    if options[:2] == ["--standalone", "--nproc-per-node"]:
        cores = len(os.sched_getaffinity(0))
        new.setdefault("OMP_NUM_THREADS", str(max(1, min(THREADS, cores // int(options[2])))))
    return new
