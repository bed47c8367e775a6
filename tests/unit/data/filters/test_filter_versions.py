"""A filter's version is part of what a finished stage is known by, so a rule that changes must raise it."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from sdrrl_nemo.data.filters import FILTERS, Duplicate

TABLE = Path(__file__).resolve().parents[3] / "data" / "filter_rules.json"
PACKAGE = "sdrrl_nemo.data.filters"
CLASSES = {**{name: FILTERS.factory(name) for name in sorted(FILTERS)}, "duplicate": Duplicate}
"""Name in configurations -> class."""


def plain(node: Any) -> Any:
    """The tree without what changes no verdict: positions, comments, docstrings, annotations, the version itself."""
    if isinstance(node, list):
        return [plain(x) for x in node if not _is_version(x)]
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    left_out = ("ctx", "annotation", "returns", "type_comment", "kind", "type_params")
    return [type(node).__name__, {k: plain(v) for k, v in sorted(fields.items()) if k not in left_out}]


def _is_version(node: Any) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "version"


@functools.cache
def definitions(source: str) -> tuple[dict[str, ast.stmt], dict[str, str]]:
    """(name -> what defines it at the top of the file, name -> module of the filters that it is imported from)."""
    own: dict[str, ast.stmt] = {}
    imported: dict[str, str] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            own[node.name] = node
        elif isinstance(node, ast.Assign):
            own.update({t.id: node for t in node.targets if isinstance(t, ast.Name)})
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith(PACKAGE):
            imported.update({a.name: str(node.module) for a in node.names})
    return own, imported


def rule(name: str, module: str, sources: dict[str, str] | None = None) -> dict[str, Any]:
    """What ``name`` is made of: its own definition, and those of the filters' package that it uses, each once."""
    found: dict[str, Any] = {}
    todo = [(module, name)]
    while todo:
        where, what = todo.pop()
        source = (sources or {}).get(where) or inspect.getsource(importlib.import_module(where))
        own, imported = definitions(source)
        if what in imported:
            todo.append((imported[what], what))
        elif what in own and f"{where}.{what}" not in found:
            found[f"{where}.{what}"] = plain(own[what])
            todo += [(where, n.id) for n in ast.walk(own[what]) if isinstance(n, ast.Name)]
    return found


def sha256(name: str, module: str, sources: dict[str, str] | None = None) -> str:
    return hashlib.sha256(json.dumps(rule(name, module, sources), sort_keys=True).encode()).hexdigest()


def now(name: str) -> dict[str, Any]:
    made = CLASSES[name]
    return {"version": made.version, "sha256": sha256(made.__name__, made.__module__)}


def complaint(name: str, known: dict[str, Any] | None, found: dict[str, Any]) -> str | None:
    """What to do about a filter that is not as in the table, or None."""
    if known == found:
        return None
    line = f"update the table {TABLE.name}: {json.dumps({name: found})}"
    if known is None or known["version"] < found["version"]:
        return f"filter '{name}' is new or has a new version; {line}"
    if known["version"] > found["version"]:
        return f"filter '{name}' has version {found['version']}, the table {known['version']}: a version never falls"
    still = f"the rule of filter '{name}' changed, but its version is still {found['version']}"
    return f"{still}: raise `version`, then {line}"


@pytest.mark.parametrize("name", CLASSES)
def test_a_rule_that_changes_raises_the_version(name: str) -> None:
    assert complaint(name, json.loads(TABLE.read_text()).get(name), now(name)) is None


def test_the_table_names_no_filter_that_is_gone() -> None:
    assert json.loads(TABLE.read_text()).keys() == CLASSES.keys()


MODULE = f"{PACKAGE}.repeats"


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ("maximum: int = 2", "maximum: int = 3", True),  # a default
        ("n <= max(self.maximum, allowed)", "n < max(self.maximum, allowed)", True),  # the rule itself
        ("[.!?。．！？។៕\\n]+", "[.!?]+", True),  # a pattern that a function of the class's module uses
        ("text.lower()", "text", True),  # that function
        ("maximum: int = 10", "maximum: int = 11", False),  # another filter
        ("class RepeatedSentences(Filter):\n", "class RepeatedSentences(Filter):  # comment\n\n", False),
        ('"""One sentence of', '"""A sentence of', False),
        ("    def _most(self", "    version = 7\n\n    def _most(self", False),
    ],
)
def test_what_counts_as_the_rule(before: str, after: str, changes: bool) -> None:
    source = inspect.getsource(importlib.import_module(MODULE))
    assert source.count(before) >= 1
    changed = sha256("RepeatedSentences", MODULE, {MODULE: source.replace(before, after)})
    assert (changed != now("repeated_sentences")["sha256"]) is changes


def test_a_rule_of_another_module_counts_too() -> None:
    assert f"{PACKAGE}.lengths.width" in rule("LengthRatio", f"{PACKAGE}.lengths")
    assert f"{PACKAGE}.base.prose" in rule("Script", f"{PACKAGE}.scripts")


def test_the_complaint_says_what_to_do() -> None:
    known, found = {"version": 2, "sha256": "a"}, {"version": 2, "sha256": "b"}
    assert "raise `version`, then update the table filter_rules.json" in str(complaint("copy", known, found))
    assert "update the table" in str(complaint("copy", known, {**found, "version": 3}))
    assert "never falls" in str(complaint("copy", {**known, "version": 3}, found))
    assert "is new" in str(complaint("copy", None, found))
    assert complaint("copy", known, dict(known)) is None
