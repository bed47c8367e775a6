"""ARCHITECTURE.md: every `file.py:name` that it leads a reader to is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.launch import ROOT

PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PLACE = re.compile(r"`([\w/]+\.py):([\w.]+)`")


def sections() -> dict[str, str]:
    """Heading -> its text."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def named_places(section: str) -> list[tuple[str, str]]:
    """(file, name in it) of each place that a section names."""
    return [(m[1], m[2]) for m in PLACE.finditer(section)]


def path_of(file: str) -> Path:
    """The loss is a package of its own below kernels/."""
    return ROOT / "kernels" / file if file.startswith("sdrrl_kernels/") else ROOT / file


@cache
def names_of(path: Path) -> set[str]:
    """Functions, classes, methods and constants at the top of a file; nothing is imported."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize(
    ("section", "at_least"), [("One step, in call order", 25), ("One row, from JSONL to loss", 10)]
)
def test_places_are_named_and_there(section: str, at_least: int) -> None:
    places = named_places(sections()[section])
    assert len(places) >= at_least
    for file, name in places:
        assert path_of(file).is_file(), file
        assert name in names_of(path_of(file)), f"{file} has no {name}"


def test_every_place_of_the_page_is_there() -> None:
    assert [(f, n) for f, n in named_places(PAGE) if n not in names_of(path_of(f))] == []
