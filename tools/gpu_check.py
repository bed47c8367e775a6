#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Check the whole recipe on this machine's GPU in one go: kernels, training with each kind of layers, speed, memory.

    tools/gpu_check.py                # under 8 minutes on an H100 (expected); the JSON is work/gpu_check/<card>.json
    tools/gpu_check.py --small        # the same on a CPU with tiny shapes

Nothing is downloaded: models have the sizes of real ones and weights that are drawn. Parts are in order of worth; one
that fails is recorded and the others go on, later ones are skipped when the time is short. Exit code 1: a part failed.
docs/gpu_check.md says what is in the tables.
"""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.common.provenance import IS_CHECKOUT, REPO_ROOT

if TYPE_CHECKING:
    from tools.gpu.parts import Part

WORK = REPO_ROOT / "work" / "gpu_check"


def parser() -> argparse.ArgumentParser:
    """Options."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--small", action="store_true", help="tiny shapes and few steps; runs on a CPU too")
    p.add_argument("--seconds", type=float, default=480.0, help="time for all parts (default 480)")
    p.add_argument("--parts", nargs="+", default=[], metavar="PART", help="only these, and what they need")
    p.add_argument("--work", type=Path, default=WORK, help="folder of inputs, runs and logs (default work/gpu_check)")
    p.add_argument("--output", type=Path, help="JSON (default <card name>.json in that folder)")
    p.add_argument("--make-reference", nargs="+", default=[], metavar="SHAPE", help="first losses on the CPU in fp32")
    return p


def main(argv: Sequence[str]) -> int:
    """Parts, one after another, then the tables."""
    args = parser().parse_args(argv)
    if not IS_CHECKOUT:
        raise SdrrlError("tools/gpu_check.py runs the tests of the checkout; an installed package has none")
    folder = args.work.resolve()
    if args.make_reference:
        return make_reference(args.make_reference, folder)

    import torch

    from sdrrl_nemo.cost.gpus import gpu_of_device
    from tools.gpu.parts import Place, all_parts
    from tools.gpu.run_parts import Course
    from tools.gpu.summary_table import lines

    on_gpu = torch.cuda.is_available()
    if not on_gpu and not args.small:
        raise SdrrlError("torch sees no GPU here (sdrrl doctor says why); --small runs the check's code on the CPU")
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") + ("_small" if args.small else "")
    output = args.output or folder / f"{slug}.json"
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9 if on_gpu else 0.0
    place = Place(folder, args.small, on_gpu, gpu_of_device(name) if on_gpu else None, memory)
    place.clear()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started is ended
    parts = chosen(all_parts(place), args.parts)
    about = {"name": name, "small": args.small, "budget_seconds": args.seconds}
    about["command"] = shlex.join(["tools/gpu_check.py", *argv])
    code = Course(parts, args.seconds, folder / "logs", output, about, place.threads).run()
    print("\n".join(lines(read_json(output))))
    print(output)
    return code


def chosen(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """The named parts with those that they need, in their order; all where none is named."""
    known = {part.name: part for part in parts}
    for name in names:
        if name not in known:
            raise SdrrlError(f"--parts: '{name}' is unknown{suggest(name, known)}")
    wanted = {need for name in names for need in (name, *known[name].after)}
    return [part for part in parts if not names or part.name in wanted]


def make_reference(names: Sequence[str], folder: Path) -> int:
    """Into tests/data/gpu_first_losses.json; the large shapes take half an hour and 14 GB."""
    from tools.gpu.first_losses import make
    from tools.gpu.shapes import shape

    for name in names:
        print(name, make(shape(name), folder / "inputs")["losses"])
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
