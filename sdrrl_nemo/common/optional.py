"""Packages that only some backends need are imported when used; a missing one names the pip extra that brings it."""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType

from sdrrl_nemo.common.errors import SdrrlError


def require(module: str, distribution: str, extra: str = "demo") -> ModuleType:
    """Import ``module``; SdrrlError names the distribution and the extra of this project that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise SdrrlError(
            f"package '{distribution}' cannot be imported ({e}); install it with: pip install 'sdrrl-nemo[{extra}]'"
        ) from None


def distribution_version(distribution: str, extra: str = "demo") -> str:
    """Installed version of a distribution, without importing it."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        raise SdrrlError(
            f"package '{distribution}' is not installed; install it with: pip install 'sdrrl-nemo[{extra}]'"
        ) from None
