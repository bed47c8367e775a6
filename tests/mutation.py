"""A reproducible mutation sample: small faults put into the code, one at a time; which of them do unit tests find?

    python -m pip install --target /tmp/mutation-tools cosmic-ray==8.7.0
    python -m tests.mutation --tools /tmp/mutation-tools --output docs/results/mutation_after.json
    python -m tests.mutation --tools /tmp/mutation-tools --tests-from 1a2b3c4 --output docs/results/mutation_before.json

Run from the checkout, with the checkout and ``kernels`` on PYTHONPATH. Nothing in the checkout is changed: every worker
has a copy of the tracked files. ``--tests-from`` takes ``tests/`` of another commit. A mutant's tests are those of its
file (tests/mutating/groups.py) that run its statement, the quickest first, until ``--budget`` CPU seconds of them are
used up; they run in a fork of a process that has imported torch, pytest and the rest. Mutants that no test could tell
from the code are listed by hand, each with its reason, in tests/data/equivalent_mutants.json. docs/testing.md has the
scores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.mutating.groups import GROUPS, Group

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = ROOT / "tests/data/equivalent_mutants.json"
HOST = ROOT / "tests/mutating/host.py"


def arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tools", help="folder with cosmic-ray, where the environment has none")
    parser.add_argument("--group", choices=GROUPS, default="first", help="the files: see tests/mutating/groups.py")
    parser.add_argument("--only", default="", help="only files whose path has this in it")
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--count", type=int, default=310, help="mutants")
    parser.add_argument("--budget", type=float, default=10.0, help="CPU seconds of tests for one mutant")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tests-from", metavar="COMMIT", help="take tests/ from this commit")
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def copy_of_tree(folder: Path, tests_from: str | None) -> Path:
    """The files that git knows or would add, without what they changed into elsewhere."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file() and not (tests_from and name.startswith("tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if tests_from:
        archive = subprocess.run(["git", "archive", tests_from, "tests"], cwd=ROOT, check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def ask_host(tree: Path, job: dict[str, Any], on_answer: Any = None) -> list[dict[str, Any]]:
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
        sys.exit(
            f"{' '.join(job['tests'])}: the process that runs them ended with {process.returncode}\n{said[-3000:]}"
        )
    return found


def chosen_tests(mutant: Any, traced: dict[str, Any], budget: float) -> tuple[list[str], float]:
    """(tests that run the mutant's statement, quickest first, within the budget; their seconds)."""
    names, total = [], 0.0
    for name, test in sorted(traced["tests"].items(), key=lambda t: t[1]["seconds"]):
        touched = test["lines"].get(mutant.path, ())
        wanted = bool(touched) if not mutant.lines else not set(mutant.lines).isdisjoint(touched)
        if wanted and test["outcome"] == "passed" and (not names or total + test["seconds"] <= budget):
            names.append(name)
            total += test["seconds"]
    return names, total


def main() -> None:
    args = arguments()
    if args.tools:
        sys.path.append(args.tools)  # last: the environment's own versions of shared packages stay
    from tests.mutating.mutants import draw

    started = time.time()
    groups = GROUPS[args.group]
    files = {f: g for g in groups for f in g.files_in(ROOT) if args.only in f}
    mutants = draw(ROOT, sorted(files), args.seed, args.count)
    with tempfile.TemporaryDirectory(prefix="mutation-") as temporary:
        trees: list[Path] = []
        for i in range(args.workers):
            (Path(temporary) / str(i)).mkdir()
            trees.append(copy_of_tree(Path(temporary) / str(i), args.tests_from))
        needed = [g for g in groups if any(files[m.path] is g for m in mutants)]
        with ThreadPoolExecutor(args.workers) as pool:
            parts = [(g, test) for g in needed for test in g.tests_in(trees[0])]
            found = list(pool.map(lambda part: trace(*part, trees[0]), parts))
            traced = {g: joined([f for (owner, _), f in zip(parts, found, strict=True) if owner is g]) for g in needed}
            outcomes = try_all(args, mutants, files, traced, trees, pool)
    report = summary(args, mutants, outcomes)
    report["minutes"] = round((time.time() - started) / 60, 1)
    report["tests_that_failed_without_a_mutant"] = sorted(
        name for t in traced.values() for name, test in t["tests"].items() if test["outcome"] == "failed"
    )
    args.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({k: report[k] for k in ("mutants", "score", "minutes")}))


def trace(group: Group, test: str, tree: Path) -> dict[str, Any]:
    """Which lines each test of a file runs, in how many seconds, and what libraries they import."""
    found = ask_host(tree, {"tests": [test], "deselect": group.slow, "targets": group.files_in(tree)})[0]
    said = Counter(t["outcome"] for t in found["tests"].values())
    seconds = sum(t["seconds"] for t in found["tests"].values())
    print(f"{test}: {dict(said)}, {seconds:.0f} s", flush=True)
    return found


def joined(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "tests": {name: test for f in found for name, test in f["tests"].items()},
        "modules": list(dict.fromkeys(name for f in found for name in f["modules"])),
    }


def try_all(
    args: argparse.Namespace, mutants: list[Any], files: dict[str, Group], traced: Any, trees: list[Path], pool: Any
) -> dict[int, str]:
    outcomes: dict[int, str] = {}
    jobs: list[dict[str, Any]] = []
    for group, found in traced.items():
        todo = []
        for i, m in enumerate(mutants):
            if files[m.path] is not group:
                continue
            names, seconds = chosen_tests(m, found, args.budget)
            if names:
                limit = 8 + 4 * seconds
                todo.append({"id": i, "path": m.path, "code": m.code, "tests": names, "seconds": limit})
            else:
                outcomes[i] = "survived"  # no test runs it
        for k in range(args.workers):
            part = todo[k :: args.workers]
            if part:
                jobs.append({"tests": group.tests_in(trees[0]), "modules": found["modules"], "mutants": part})
    free = list(trees)
    lock = threading.Lock()

    def work(job: dict[str, Any]) -> None:
        with lock:
            tree = free.pop()
        for answer in ask_host(tree, job):
            outcomes[answer["id"]] = answer["outcome"]
        with lock:
            free.append(tree)
        print(f"{len(outcomes)} of {len(mutants)}", flush=True)

    list(pool.map(work, jobs))
    return outcomes


def summary(args: argparse.Namespace, mutants: list[Any], outcomes: dict[int, str]) -> dict[str, Any]:
    """Scores; equivalent mutants are known by file and change, wherever the line is now."""
    listed = json.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.is_file() else []
    equivalent = {(e["file"], e["before"], e["after"]): e["reason"] for e in listed}
    by_file: dict[str, Counter[str]] = {}
    survivors = []
    for i, m in enumerate(mutants):
        outcome = outcomes[i]
        if outcome == "survived" and (m.path, *m.change) in equivalent:
            outcome = "equivalent"
        by_file.setdefault(m.path, Counter())[outcome] += 1
        if outcome == "survived":
            survivors.append(
                {"where": f"{m.path}:{m.line}", "operator": m.operator, "before": m.change[0], "after": m.change[1]}
            )
    total: Counter[str] = sum(by_file.values(), Counter())
    found = total["killed"] + total["timeout"]
    real = len(mutants) - total["equivalent"]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {
        "command": "python -m " + " ".join(["tests.mutation", *_plain(sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
        "commit": commit.strip(),
        "tests_from": args.tests_from or commit.strip(),
        "machine": {"cores": os.cpu_count(), "python": sys.version.split()[0]},
        "mutants": {"drawn": len(mutants), **{k: total[k] for k in ("killed", "timeout", "survived", "equivalent")}},
        "score": round(found / real, 4) if real else None,
        "files": {path: dict(counts) for path, counts in sorted(by_file.items())},
        "survivors": survivors,
    }


def _plain(words: list[str]) -> list[str]:
    """The command without a path of this machine."""
    return ["TOOLS" if i and words[i - 1] == "--tools" else w for i, w in enumerate(words)]


if __name__ == "__main__":
    main()
