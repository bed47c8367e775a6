"""Which versions of Python and of the packages beneath are served, and which were run together (docs/versions.md).

Reads what is installed from its metadata; imports nothing heavy, so that it can be asked before anything else.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

TRY_ANYWAY = "SDRRL_TRY_OTHER_VERSIONS"
"""Set to 1, installed versions are not compared with those served; what is patched must still look as expected."""


def try_anyway() -> bool:
    """Whether the environment asks to go on with whatever is installed."""
    return os.environ.get(TRY_ANYWAY, "0") not in ("", "0")


@dataclass(frozen=True)
class Range:
    """Versions of one package that are served."""

    versions: str
    """A version specifier, as pip reads it."""
    why: str
    purposes: tuple[str, ...] = ()
    """What cannot be done without the package (of ``PURPOSES``); empty: optional, checked where it is installed."""


PURPOSES = ("train", "export", "plan", "data", "evaluate", "kernels")

_MEGATRON = ("train", "export", "plan")
_MODELS = (*_MEGATRON, "data", "evaluate")

SUPPORTED: dict[str, Range] = {
    "python": Range(
        ">=3.11,<3.14", "older ones lack the syntax used here, newer ones have no wheels of all packages", PURPOSES
    ),
    "torch": Range(">=2.9,<2.14", "the patches for machines without a GPU were checked with these", PURPOSES),
    "numpy": Range(
        ">=1.26,<3", "1.26 is the last that megatron-core names; 2 needs the patch in compat/numpy2.py", _MODELS
    ),
    "transformers": Range(
        ">=4.57,<6", "NeMo names 4.57; 5 keeps rotary settings elsewhere, compat/transformers5.py", _MODELS
    ),
    "megatron-core": Range("==0.15.3", "patches name functions of this version", (*_MEGATRON, "data")),
    "nemo_toolkit": Range("==2.7.3", "the last line that carries nemo.lightning and nemo.collections.llm", _MEGATRON),
    "lightning": Range(">=2.4,<2.6", "with 2.6 nemo.lightning of NeMo 2.7.3 cannot be imported", _MEGATRON),
    "transformer-engine": Range(">=2.9,<2.10", "what megatron-core 0.15.3 names"),
    "flash-attn": Range(">=2.7,<3", "the interface flash_attn_varlen_func is that of version 2"),
    "triton": Range(">=3.3,<4", "the loss kernels are compiled with 3.9 and run with the one that torch brings"),
}
"""By distribution name; ``python`` is the interpreter."""


def installed_version(package: str) -> str | None:
    """Version of an installed distribution (or of ``python``) without importing it; None: it is not installed."""
    if package == "python":
        return platform.python_version()
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def within(version: str, versions: str) -> bool:
    """Whether a version is in a range; builds of NVIDIA's images (``2.10.0a0+b558c986e8.nv25.11``) count as theirs."""
    try:
        return SpecifierSet(versions).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def check_versions(purpose: str) -> list[str]:
    """A sentence for each package that is missing for ``purpose``, or installed in a version that is not served."""
    if purpose not in PURPOSES:
        raise ValueError(f"purpose '{purpose}' is none of {', '.join(PURPOSES)}")
    problems = []
    for package, wanted in SUPPORTED.items():
        version = installed_version(package)
        name = "Python" if package == "python" else package
        if version is None:
            if purpose in wanted.purposes:
                problems.append(f"{name} is not installed; install '{package}{wanted.versions}' (docs/versions.md)")
        elif not within(version, wanted.versions):
            cure = "use one of these" if package == "python" else f"install '{package}{wanted.versions}'"
            problems.append(
                f"{name} {version} is installed, served are {wanted.versions}: {wanted.why}; {cure} (docs/versions.md)"
            )
    return problems


@dataclass(frozen=True)
class Run:
    """Versions that were run together, and what was run."""

    name: str
    python: str
    torch: str
    numpy: str
    transformers: str
    lightning: str
    what: str

    def cells(self) -> list[str]:
        """Row of the table in docs/versions.md, without the name."""
        return [self.python, self.torch, self.numpy, self.transformers, self.lightning, self.what]


UNIT = "unit tests of model, data, train and evaluation"
TESTED: tuple[Run, ...] = (
    Run("locked for 3.11", "3.11", "2.13.0", "1.26.4", "4.57.6", "2.4.0", "the whole test suite"),
    Run("numpy 2", "3.11", "2.13.0", "2.4.6", "4.57.6", "2.4.0", UNIT),
    Run("transformers 5", "3.11", "2.13.0", "1.26.4", "5.24.0", "2.4.0", UNIT),
    Run("both", "3.11", "2.13.0", "2.4.6", "5.24.0", "2.4.0", f"{UNIT}; training, resume and export on two processes"),
    Run(
        "locked for 3.12",
        "3.12",
        "2.13.0+cu130",
        "2.4.6",
        "4.57.6",
        "2.4.0",
        "nvcc, no GPU: the whole test suite, demo-short",
    ),
    Run(
        "locked for 3.13",
        "3.13",
        "2.13.0+cu130",
        "2.4.6",
        "5.20.2",
        "2.4.0",
        "nvcc, no GPU: the whole test suite, demo-short",
    ),
)
"""All with megatron-core 0.15.3 and NeMo 2.7.3."""
