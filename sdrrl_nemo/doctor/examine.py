"""Gathers the facts: what is quick here, the tries in processes of their own, side by side."""

from __future__ import annotations

import shutil

from sdrrl_nemo.compat.versions import PURPOSES, check_versions
from sdrrl_nemo.doctor.machine import machine
from sdrrl_nemo.doctor.packages import comet_environment, driver, packages
from sdrrl_nemo.doctor.probes import Outcome, probe_side_by_side
from sdrrl_nemo.doctor.verdicts import Facts

OPTIONAL = ("triton", "transformer-engine", "flash-attn", "apex")
"""Tried where they are installed."""


def examine() -> Facts:
    """All facts; takes as long as importing NeMo does."""
    found = packages()
    there = [p.name for p in found if p.name in OPTIONAL and p.version is not None]
    tries = probe_side_by_side(
        ("torch", "loss", "training", "export"), ("preprocessing", "evaluation", "planner", *there)
    )
    return Facts(
        machine=machine(),
        packages=found,
        driver=driver(),
        tries={**{name: Outcome(False, "is not installed") for name in OPTIONAL}, **tries},
        comet=comet_environment(),
        problems={purpose: check_versions(purpose) for purpose in PURPOSES},
        debian_tools=all(shutil.which(tool) for tool in ("apt-get", "dpkg-deb")),
    )
