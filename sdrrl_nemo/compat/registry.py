"""Patches: what is replaced in another project's code or read from its private parts, and for which versions.

A patch knows the versions it was written for and looks at what it replaces before it does: a parameter list or the
source that is not the expected one is an error in one sentence, never a silent difference in training.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.versions import SUPPORTED, TRY_ANYWAY, installed_version, try_anyway, within

_MISSING: Any = object()


@dataclass(frozen=True)
class Patch:
    """One thing that is replaced, or one private part that is relied upon."""

    name: str
    package: str
    """Distribution name, one of ``SUPPORTED``, or another one with versions of its own."""
    versions: str
    why: str

    def fail(self, found: str) -> NoReturn:
        """SdrrlError: which patch, what was found, for which versions it is, what to do."""
        version = installed_version(self.package)
        raise SdrrlError(
            f"patch '{self.name}' is for {self.package} {self.versions}, installed is {version or 'none'}: {found}; "
            f"install '{self.package}{self.versions}' (docs/versions.md)"
        )

    def check_version(self) -> None:
        """SdrrlError where the installed version is not one this was written for."""
        version = installed_version(self.package)
        if not try_anyway() and not (version and within(version, self.versions)):
            self.fail(f"it was not checked there (to try it all the same set {TRY_ANYWAY}=1)")

    def get(
        self, owner: Any, attribute: str, *, parameters: Iterable[str] | None = None, source: str | None = None
    ) -> Any:
        """``owner.attribute``, private or not, if it looks as expected; else SdrrlError.

        Args:
            parameters: names of its parameters, ``self`` left out.
            source: first hexadecimal digits of the SHA-256 of its source text.
        """
        self.check_version()
        where = f"{getattr(owner, '__name__', type(owner).__name__)}.{attribute}"
        found = getattr(owner, attribute, _MISSING)
        if found is _MISSING:
            self.fail(f"{where} is not there")
        if parameters is not None and (names := _parameters(found)) != list(parameters):
            self.fail(f"{where} takes ({', '.join(names)}), not ({', '.join(parameters)})")
        if source is not None and not _source_sha256(found).startswith(source):
            self.fail(f"the source of {where} is another one")
        return found

    def replace(
        self,
        owner: Any,
        attribute: str,
        new: Any,
        *,
        parameters: Iterable[str] | None = None,
        source: str | None = None,
    ) -> Any:
        """Assign ``new`` to ``owner.attribute`` after looking at what is there; returns what was there."""
        old = self.get(owner, attribute, parameters=parameters, source=source)
        setattr(owner, attribute, new)
        return old


def _parameters(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def _source_sha256(function: Callable[..., Any]) -> str:
    try:
        text = inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):
        return "no source"
    return hashlib.sha256(text.encode()).hexdigest()


PATCHES: dict[str, Patch] = {}
"""By name; docs/versions.md has a row for each."""


def register(name: str, package: str, why: str, versions: str = "") -> Patch:
    """A new patch; ``versions`` are those of ``SUPPORTED`` where they are not given."""
    if name in PATCHES:
        raise ValueError(f"two patches are named '{name}'")
    PATCHES[name] = Patch(name, package, versions or SUPPORTED[package].versions, why)
    return PATCHES[name]
