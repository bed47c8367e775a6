"""The check of versions that entry points make before anything heavy is imported; it reads metadata alone."""

from __future__ import annotations

import sys

from sdrrl_nemo.common.cli import is_rank_zero
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.versions import TRY_ANYWAY, check_versions, try_anyway

BREAKING = ("megatron-core", "nemo_toolkit", "lightning", "transformer-engine")
"""In another version than those served these are known to fail, some after minutes; of the rest it is not known."""


def start_check(purpose: str, warn: bool = True) -> None:
    """SdrrlError where a package for ``purpose`` is absent or known to fail; rank 0 warns of versions nobody has run.

    With SDRRL_TRY_OTHER_VERSIONS=1 in the environment nothing is checked.
    """
    if try_anyway():
        return
    for problem in check_versions(purpose):
        package, _, said = problem.partition(" ")
        if package in BREAKING or said.startswith("is not installed"):
            raise SdrrlError(f"{problem}; {TRY_ANYWAY}=1 goes on without this check")
        if warn and is_rank_zero():
            print(f"warning: {problem}; {TRY_ANYWAY}=1 silences this", file=sys.stderr, flush=True)
