"""Copies of the checkout, hosts that run tests in them, and what hosts have answered before."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.mutating.groups import Group

ROOT = Path(__file__).resolve().parents[2]
HOST = ROOT / "tests/mutating/host.py"
CONTROL = "control"
PART = 25
"""Mutants for one host: the answers of a host are kept when it has ended."""


def copy_of_tree(folder: Path, tests_from: str | None) -> Path:
    """The files that git knows or would add; ``tests/`` of another commit where one is named."""
    folder.mkdir()
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file() and not (tests_from and name.startswith("tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if tests_from:
        archive = subprocess.run(["git", "archive", tests_from, "tests"], cwd=ROOT, check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def ask_host(tree: Path, job: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers of one host process, in order."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as answers:
        paths = os.pathsep.join([str(tree), str(tree / "kernels")])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        process = subprocess.Popen(
            [sys.executable, "-P", str(HOST)], cwd=tree, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        said, _ = process.communicate(json.dumps({**job, "answers": answers.name}))
        found = [json.loads(line) for line in answers]
    if process.returncode:
        raise SystemExit(f"the process that runs tests ended with {process.returncode}\n{said[-3000:]}")
    return found


class Bench:
    """Runs the tests of groups on mutants, in as many copies of the tree as there are workers."""

    def __init__(self, trees: list[Path], keep: Path | None, budget: float) -> None:
        self.trees, self.keep, self.budget = trees, keep, budget
        self.free: queue.Queue[Path] = queue.Queue()
        for tree in trees:
            self.free.put(tree)
        self.failed: list[str] = []
        if keep:
            keep.mkdir(parents=True, exist_ok=True)

    def run(self, mutants: dict[Group, list[Any]]) -> dict[Any, str]:
        """Outcome of each mutant: killed, survived or timeout."""
        groups = [g for g, drawn in mutants.items() if drawn]
        with ThreadPoolExecutor(len(self.trees)) as pool:
            parts = [(g, test) for g in groups for test in g.tests_in(self.trees[0])]
            traces = list(pool.map(lambda part: self._trace(*part), parts))
            traced = {
                g: _joined([t for (owner, _), t in zip(parts, traces, strict=True) if owner is g]) for g in groups
            }
            self.failed = sorted(
                n for t in traced.values() for n, test in t["tests"].items() if test["outcome"] == "failed"
            )
            list(pool.map(lambda g: self._control(g, traced[g]), groups))
            outcomes: dict[Any, str] = {}
            jobs = []
            for group in groups:
                chosen = {m: chosen_tests(m, traced[group], self.budget) for m in mutants[group]}
                outcomes.update({m: "survived" for m, (names, _) in chosen.items() if not names})
                asked = [m for m in mutants[group] if m not in outcomes]
                jobs += [
                    (group, traced[group], {m: chosen[m] for m in asked[i : i + PART]})
                    for i in range(0, len(asked), PART)
                ]
            for found in pool.map(lambda job: self._try(*job), jobs):
                outcomes.update(found)
                print(f"{len(outcomes)} of {sum(map(len, mutants.values()))}", flush=True)
        return outcomes

    def _trace(self, group: Group, test: str) -> dict[str, Any]:
        """Which lines each test of a file runs, in how many seconds, and what libraries they import."""
        job = {"tests": [test], "deselect": group.slow, "targets": group.files_in(self.trees[0])}
        (found,) = self._ask(job, [test, *group.files_in(self.trees[0])], [job], lambda _: job)
        said = dict(Counter(t["outcome"] for t in found["tests"].values()))
        print(f"{test}: {said}, {sum(t['seconds'] for t in found['tests'].values()):.0f} s", flush=True)
        return dict(found)

    def _control(self, group: Group, traced: dict[str, Any]) -> None:
        """All tests must pass on the code as it is, in the way that mutants are tried, or nothing killed them."""
        names = [name for name, test in traced["tests"].items() if test["outcome"] == "passed"]
        seconds = 120 + 4 * sum(traced["tests"][name]["seconds"] for name in names)
        control = {"id": CONTROL, "path": group.files_in(self.trees[0])[0], "code": None, "tests": names}
        if names:
            (found,) = self._ask_mutants(group, traced, [{**control, "seconds": seconds}])
            if found["outcome"] != "survived":
                raise SystemExit(f"{group.tests}: not all tests pass without a mutant; nothing can be said")

    def _try(self, group: Group, traced: dict[str, Any], chosen: dict[Any, tuple[list[str], float]]) -> dict[Any, str]:
        drawn = list(chosen)
        questions = []
        for i, m in enumerate(drawn):
            names, seconds = chosen[m]
            questions.append({"id": i, "path": m.path, "code": m.code, "tests": names, "seconds": 8 + 4 * seconds})
        found = self._ask_mutants(group, traced, questions)
        return {m: answer["outcome"] for m, answer in zip(drawn, found, strict=True)}

    def _ask_mutants(self, group: Group, traced: dict[str, Any], questions: list[dict[str, Any]]) -> list[Any]:
        tree = self.trees[0]
        depends = [*group.tests_in(tree), *group.files_in(tree)]
        keys = [{k: q[k] for k in ("path", "code", "tests")} for q in questions]
        return self._ask(keys, depends, questions, lambda rest: {"modules": traced["modules"], "mutants": rest})

    def _ask(self, keys: Any, files: list[str], questions: list[Any], job: Callable[[list[Any]], Any]) -> list[Any]:
        """Answers to ``questions``; those known by key, and by the files that they depend on, are not asked again."""
        content = hashlib.sha256("".join((self.trees[0] / f).read_text(encoding="utf-8") for f in files).encode())
        names = [hashlib.sha256(f"{content.hexdigest()} {json.dumps(k)}".encode()).hexdigest() for k in _list(keys)]
        paths = [self.keep / f"{name}.json" if self.keep else None for name in names]
        known = [json.loads(p.read_text(encoding="utf-8")) if p and p.is_file() else None for p in paths]
        rest = [q for q, answer in zip(questions, known, strict=True) if answer is None]
        if rest:
            tree = self.free.get()
            try:
                fresh = iter(ask_host(tree, job(rest)))
            finally:
                self.free.put(tree)
            for i, answer in enumerate(known):
                if answer is None:
                    known[i] = next(fresh)
                    if path := paths[i]:
                        path.write_text(json.dumps(known[i]), encoding="utf-8")
        return known


def _list(keys: Any) -> list[Any]:
    return keys if isinstance(keys, list) else [keys]


def _joined(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "tests": {name: test for f in found for name, test in f["tests"].items()},
        "modules": list(dict.fromkeys(name for f in found for name in f["modules"])),
    }


def chosen_tests(mutant: Any, traced: dict[str, Any], budget: float) -> tuple[list[str], float]:
    """(tests that run the mutant's statement, quickest first, within the budget; their seconds)."""
    names: list[str] = []
    total = 0.0
    for name, test in sorted(traced["tests"].items(), key=lambda t: t[1]["seconds"]):
        touched = test["lines"].get(mutant.path, ())
        wanted = bool(touched) if not mutant.lines else not set(mutant.lines).isdisjoint(touched)
        if wanted and test["outcome"] == "passed" and (not names or total + test["seconds"] <= budget):
            names.append(name)
            total += test["seconds"]
    return names, total
