"""Backends are registered by name and chosen in YAML; an unknown name is an error that suggests the nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from sdrrl_nemo.common.errors import SdrrlError, suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """Name -> factory for one kind of part (``translator``, ``quality estimator``, ...)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._factories: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Decorator: file a class or function under ``name``."""

        def add(factory: Callable[..., T]) -> Callable[..., T]:
            if name in self._factories:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._factories[name] = factory
            return factory

        return add

    def factory(self, name: str) -> Callable[..., T]:
        """The registered factory; SdrrlError with the nearest name when there is none."""
        if name not in self._factories:
            raise SdrrlError(f"unknown {self.kind} backend '{name}'{suggest(name, self._factories)}")
        return self._factories[name]

    def create(self, name: str, **options: Any) -> T:
        """Build the backend ``name`` with the options from YAML; wrong option names are a SdrrlError."""
        factory = self.factory(name)
        import inspect

        known = inspect.signature(factory).parameters
        for key in options:
            if key not in known:
                raise SdrrlError(f"{self.kind} backend '{name}' has no option '{key}'{suggest(key, known)}")
        return factory(**options)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._factories))
