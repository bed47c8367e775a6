"""What is here, as the doctor finds it: machine, driver, GPUs, versions; printed as one line of JSON.

Only what is quick is tried: whether NeMo can be imported shows in the training that follows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.doctor.examine import OPTIONAL
from sdrrl_nemo.doctor.machine import machine
from sdrrl_nemo.doctor.packages import driver, packages, settings
from sdrrl_nemo.doctor.probes import probe_side_by_side
from tools.gpu.layer_kinds import KINDS, why_not


def main(argv: Sequence[str]) -> None:
    """Look and print."""
    found = packages()
    there = [p.name for p in found if p.name in OPTIONAL and p.version is not None]
    tries = probe_side_by_side(("torch", "loss"), there)
    facts = {
        "machine": asdict(machine()),
        "driver": asdict(driver()),
        "packages": {p.name: p.version for p in found if p.version is not None},
        "not_served": [f"{p.name} {p.version}: served are {p.served}" for p in found if not p.fits],
        "settings": settings(),
        "tries": {name: asdict(outcome) for name, outcome in tries.items()},
        "layers": {kind.name: why_not(kind) or "available" for kind in KINDS},
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    sys.exit(run(main))
