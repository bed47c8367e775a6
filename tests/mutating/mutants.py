"""Mutants of a file: cosmic-ray's operators and three of our own, drawn by a seed.

A mutant's number in the draw is a hash of its line, so a change elsewhere in a file does not change the draw: the same
mutants are tried before and after new tests, and before and after a small repair.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider

UNUSED = {
    "VariableReplacer",
    "VariableInserter",
    "ReplaceComparisonOperator_Eq_Is",
    "ReplaceComparisonOperator_NotEq_IsNot",
}
"""Those that need names to be given, and identity in place of equality, the same for short words and small numbers."""
CACHES = ("@cache", "@lru_cache")
"""Without them a function is slower and gives the same."""


class ReturnNone(Operator):
    """``return x`` -> ``return None``."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if node.type == "return_stmt" and node.children[1].get_code().strip() != "None":
            yield node.children[1].start_pos, node.children[1].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.children[1] = parso.parse(" None")
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class DropOperand(Operator):
    """``a and b`` -> ``b`` or ``a``; the same for ``or``."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if node.type in ("and_test", "or_test"):
            for operand in node.children[::2]:
                yield operand.start_pos, operand.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        start = max(0, 2 * index - 1)  # the operand with the word before it, the first one with the word after it
        del node.children[start : start + 2]
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class DropCall(Operator):
    """A call whose result nobody takes -> ``pass``."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if node.type == "simple_stmt" and node.children[0].type in ("atom_expr", "power"):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        before = node.children[0].get_first_leaf().prefix
        node.children[0] = parso.parse(f"{before}pass")
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


@dataclass(frozen=True)
class Mutant:
    """``change``: the line before and after; ``lines``: those of the statement, empty where it runs at import."""

    path: str
    line: int
    operator: str
    change: tuple[str, str]
    code: str
    lines: tuple[int, ...]


def draw(root: Path, paths: list[str], seed: int, count: int) -> list[Mutant]:
    """``count`` mutants of ``paths``: places by the order of their hashes, and one mutant a place, by hash too."""
    places = []
    for path in paths:
        source = (root / path).read_text(encoding="utf-8")
        for name, candidates in _places(source).items():
            key = f"{seed} {path} {name}"
            chosen = min(candidates, key=lambda c: _hash(f"{key} {c[0]} {c[3]}"))
            places.append((_hash(key), path, source, chosen))
    places.sort(key=lambda p: p[0])
    made = (_make(path, source, *chosen) for _, path, source, chosen in places)
    drawn = itertools.islice((m for m in made if _is_python(m.code)), count)
    return sorted(drawn, key=lambda m: (m.path, m.line, m.change))


def _is_python(code: str) -> bool:
    """Not all are: the star before keyword arguments is no product."""
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


Candidate = tuple[str, Any, int, int, int]
"""Operator's name, operator, occurrence in the file, the how-many-th at its place, line."""


def _places(source: str) -> dict[str, list[Candidate]]:
    """Candidates by place; a place is named by its line's text, which repetition of that text it is, and columns."""
    lines = source.splitlines()
    seen: dict[str, int] = defaultdict(int)
    repetition = []
    for text in lines:
        repetition.append(seen[text])
        seen[text] += 1
    left_out = _left_out(source)
    nodes = list(ast_nodes(get_ast(source)))
    places: dict[str, list[Candidate]] = defaultdict(list)
    for name, operator in _operators():
        here: dict[Any, int] = defaultdict(int)
        positions = [p for node in nodes for p in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(positions):
            text = lines[start[0] - 1]
            if any(a <= start and end <= b for a, b in left_out) or text.strip().startswith(CACHES):
                continue
            place = f"{text.strip()} {repetition[start[0] - 1]} {start[1]}-{end[0] - start[0]}:{end[1]}"
            places[place].append((name, operator, occurrence, here[start, end], start[0]))
            here[start, end] += 1
    return places


def _operators() -> list[tuple[str, Operator]]:
    provider = OperatorProvider()
    known = [(name, provider[name]()) for name in sorted(provider) if name not in UNUSED]
    return [*known, ("ReturnNone", ReturnNone()), ("DropOperand", DropOperand()), ("DropCall", DropCall())]


def _left_out(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Type annotations, ``if TYPE_CHECKING``, ``__version__``: nothing that runs."""
    out: list[Any] = []
    for node in ast.walk(ast.parse(source)):
        out += [getattr(node, field, None) for field in ("annotation", "returns")]
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            out.append(node)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            out.append(node)
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in out if n is not None]


def _make(path: str, source: str, name: str, operator: Any, occurrence: int, _: int, line: int) -> Mutant:
    code = mutate_code(source, operator, occurrence)
    before, after = source.splitlines(), code.splitlines()
    first = next(i for i, pair in enumerate(zip([*before, ""], [*after, ""], strict=False)) if pair[0] != pair[1])
    tail = 0
    while tail < min(len(before), len(after)) - first and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    change = tuple(" ".join(" ".join(t[first : len(t) - tail]).split()) for t in (before, after))
    return Mutant(path, line, name, (change[0], change[1]), code, _statement(source, line))


def _statement(source: str, line: int) -> tuple[int, ...]:
    """Lines of the innermost statement at ``line`` (of a compound one its head); empty where it runs at import."""
    best: tuple[int, int] | None = None
    inside = False
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.body[0].lineno <= line <= (node.end_lineno or 0):
            inside = True
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            if line <= max(end, node.lineno) and (best is None or node.lineno >= best[0]):
                best = (node.lineno, max(end, node.lineno))
    return tuple(range(best[0], best[1] + 1)) if inside and best else ()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
