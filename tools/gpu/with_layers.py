"""Run a script of this repository with one kind of layers; torchrun starts this in the script's place.

    torchrun --nproc-per-node 1 tools/gpu/with_layers.py local - recipes/sdrrl_pretrain.py --config FILE key=value ...

The second word is ``-``, or a file: everything is imported at once and the script begins when the file is there, so
that a process loads NeMo while the one before it still has the GPU for itself.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.provenance import script_path
from tools.gpu.layer_kinds import kind, take, taken


def main(argv: Sequence[str]) -> int:
    """Hide, import, wait, run; the script's own exit code."""
    if len(argv) < 3:
        raise SdrrlError("with_layers.py needs: layers, a gate's file or -, a script")
    wanted, gate, script = kind(argv[0]), argv[1], argv[2]
    take(wanted)

    from sdrrl_nemo.compat.start import prepare

    prepare()
    import sdrrl_nemo.train.trainer  # noqa: F401 - imported before the gate

    if taken() != wanted.name:
        raise SdrrlError(f"layers '{wanted.name}' were asked for and '{taken()}' would be taken")
    if gate != "-":
        _wait_for(Path(gate))
    sys.argv = list(argv[2:])
    try:
        runpy.run_path(str(script_path(script)), run_name="__main__")
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 1 if e.code else 0
    return 0


def _wait_for(gate: Path) -> None:
    """Until the file is there; the process does not outlive its launcher, nor the check that started that."""
    launcher = psutil.Process(os.getppid())
    check = launcher.ppid()
    while not gate.exists():
        if os.getppid() != launcher.pid or launcher.ppid() != check:
            raise SdrrlError("the check that started this process has ended")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(run(main))
